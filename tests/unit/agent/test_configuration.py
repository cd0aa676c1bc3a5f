"""The thresholds file: what it may say, what is said of a wrong one, and how a changed one comes into force."""

import asyncio
import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.agent.judged_node import Node, only
from tests.unit.agent.test_checks_recall import WORKING

from gpudiag_agent import __main__, options
from gpudiag_agent.clock import SystemClock
from gpudiag_agent.configuration import MAX_BYTES, WATCH_PERIOD, Configuration, ConfigurationError, load
from gpudiag_agent.publisher import Publisher
from gpudiag_agent.server.metrics import Metrics
from gpudiag_agent.thresholds import PCIeErrorLimits, Thresholds

ROOT = Path(__file__).resolve().parents[3]


class SteppedClock(SystemClock):
    """Every wait is over at once, and counted."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)


def write(path: Path, text: str) -> Path:
    """As a ConfigMap changes: by another file in its place."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)
    return path


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "{}", "pcieErrors: {}"])
def test_what_is_left_out_keeps_its_default(tmp_path: Path, text: str) -> None:
    assert load(write(tmp_path / "t.yaml", text)) == Thresholds()


@pytest.mark.parametrize(
    ("name", "text"),
    [("t.yaml", "pcieErrors:\n  replaysPerMinute: 20\n"), ("t.json", '{"pcieErrors": {"replaysPerMinute": 20}}')],
)
def test_yaml_and_json(tmp_path: Path, name: str, text: str) -> None:
    assert load(write(tmp_path / name, text)) == Thresholds(pcie_errors=PCIeErrorLimits(replays_per_minute=20))


def test_the_documented_file_holds_the_defaults() -> None:
    path = ROOT / "docs" / "thresholds.yaml"
    assert load(path) == Thresholds()
    schema = json.loads((ROOT / "docs" / "thresholds.schema.json").read_text())
    sections = schema["$defs"]["Thresholds"]["properties"]
    assert set(yaml.safe_load(path.read_text())) == set(sections)
    fields = [field for part in sections.values() for field in schema["$defs"][_name(part)]["properties"].values()]
    assert all(field["description"].endswith(".") for field in fields)


def _name(reference: dict[str, str]) -> str:
    return reference["$ref"].rpartition("/")[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pcieErrors: {replaysPerMinute: -1}", "$.pcieErrors.replaysPerMinute: Expected `int` >= 0"),
        ("pcieErrors: {replaysPerMinute: many}", "$.pcieErrors.replaysPerMinute: Expected `int`, got `str`"),
        ("temperature: {gpuCelsius: 900}", "$.temperature.gpuCelsius: Expected `int` <= 130"),
        ("throttling: {raisePercent: 10}", "$.throttling: clearPercent 20 is above raisePercent 10"),
        ("throttling: 3", "$.throttling: Expected `object`, got `int`"),
        ("pcieErors: {}", "$: Object contains unknown field `pcieErors`; allowed: c2c, eccCorrected, "),
        ("eccCorrected: {perMinute: 3}", "$.eccCorrected: Object contains unknown field `perMinute`; allowed: perDay,"),
        ("- 1", "$: Expected `object`, got `array`"),
        ("a: [", "not YAML: "),
        ("a: *b", "not YAML: "),
        ("[" * 5000, "not YAML: "),
        ("\x00", "not YAML: "),
        ("#" * (MAX_BYTES + 1), "larger than 256 KiB"),
    ],
)
def test_a_wrong_file_is_refused_by_the_name_of_the_field(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "t.yaml", text)
    with pytest.raises(ConfigurationError) as refused:
        load(path)
    assert str(refused.value).startswith(f"{path}: {said}")


@given(st.one_of(st.binary(max_size=200), st.text("{}[]:,-&*!|>'\"% \n\tapcieErors09.", max_size=60).map(str.encode)))
def test_no_file_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name in ("fuzz.yaml", "fuzz.json"):
        (folder / name).write_bytes(raw)
        try:
            assert isinstance(load(folder / name), Thresholds)
        except ConfigurationError as refused:
            assert str(refused)  # noqa: PT017 - either a configuration or a sentence


def test_the_command_refuses_it_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "t.yaml", "pcieErrors: {replaysPerMinute: -1}")
    flags = ["--source", "simulated", "--host", "127.0.0.1", "--port", "0", "--config"]
    for place, said in ((path, "$.pcieErrors.replaysPerMinute"), (tmp_path / "no.yaml", "No such file")):
        assert __main__.main([*flags, str(place)]) == options.EXIT_USAGE
        error = capsys.readouterr().err
        assert f"--config: {place}: {said}" in error
        assert "Traceback" not in error


def test_the_flag_has_an_environment_twin() -> None:
    assert options.parse([], {"GPUDIAG_CONFIG": "/etc/t.yaml"}).config == Path("/etc/t.yaml")
    assert options.parse([], {}).config is None


class TestReload:
    def test_a_changed_file_comes_into_force(self, tmp_path: Path) -> None:
        path = write(tmp_path / "t.yaml", "")
        told: list[str | None] = []
        configuration = Configuration(path, clock=SystemClock(), on_change=lambda: told.append(configuration.problem))
        configuration.reload()
        assert told == []
        write(path, "temperature: {gpuCelsius: 40}")
        configuration.reload()
        assert (configuration.thresholds().temperature.gpu_celsius, told) == (40, [None])

    @pytest.mark.parametrize("wrong", ["temperature: {gpuCelsius: hot}", None], ids=["wrong", "gone"])
    def test_a_wrong_one_changes_nothing_and_is_told_once(
        self, tmp_path: Path, wrong: str | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = write(tmp_path / "t.yaml", "temperature: {gpuCelsius: 40}")
        told: list[str | None] = []
        configuration = Configuration(path, clock=SystemClock(), on_change=lambda: told.append(configuration.problem))
        if wrong is None:
            path.unlink()
        else:
            write(path, wrong)
        for _ in range(3):
            configuration.reload()
        assert configuration.thresholds().temperature.gpu_celsius == 40
        assert len(told) == len(caplog.records) == 1
        assert str(path) in str(told[0])
        write(path, "temperature: {gpuCelsius: 50}")
        configuration.reload()
        assert (configuration.thresholds().temperature.gpu_celsius, configuration.problem) == (50, None)

    def test_another_file_of_the_same_size_and_time_is_another(self, tmp_path: Path) -> None:
        path = write(tmp_path / "t.yaml", "temperature: {gpuCelsius: 40}")
        configuration = Configuration(path, clock=SystemClock())
        before = path.stat()
        kept = path.rename(tmp_path / "kept.yaml")
        write(path, "temperature: {gpuCelsius: 50}")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        configuration.reload()
        assert configuration.thresholds().temperature.gpu_celsius == 50
        kept.unlink()

    @pytest.mark.parametrize(("problem", "value"), [(None, "1.0"), ("wrong", "0.0")])
    def test_whether_it_is_in_force_is_a_metric(self, problem: str | None, value: str) -> None:
        assessor = Node().assessor
        assessor.thresholds_problem = problem
        clock = SystemClock()
        metrics = Metrics(assessor=assessor, publisher=Publisher(), clock=clock, lost_records=lambda: 0)
        assert f"gpudiag_agent_config_last_reload_successful {value}" in metrics.page().decode()

    async def test_it_is_looked_at_every_few_seconds(self, tmp_path: Path) -> None:
        path, clock = write(tmp_path / "t.yaml", ""), SteppedClock()
        seen = asyncio.Event()
        configuration = Configuration(path, clock=clock, on_change=seen.set)
        watching = asyncio.create_task(configuration.watch())
        write(path, "power: {lowestLimitPercent: 50}")
        await asyncio.wait_for(seen.wait(), 5)
        watching.cancel()
        assert set(clock.waits) == {WATCH_PERIOD}

    def test_without_a_file_there_is_nothing_to_watch(self) -> None:
        configuration = Configuration(None, clock=SystemClock())
        configuration.reload()
        assert configuration.thresholds() == Thresholds()

    def test_every_check_judges_by_it_at_once(self, tmp_path: Path) -> None:
        path = write(tmp_path / "t.yaml", "")
        configuration = Configuration(path, clock=SystemClock())
        node = Node([WORKING])
        node.thresholds = configuration.thresholds()
        assert node.see().findings == ()
        write(path, "temperature: {gpuCelsius: 40}")
        configuration.reload()
        node.thresholds = configuration.thresholds()
        assert only(node.see()).reason == "Overheating"
