"""Settings: flags, environment, defaults, and sentences for what is wrong."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpudiag_operator.settings import Settings, parse


def test_without_flags_it_is_the_documented_default() -> None:
    assert parse([], {}) == Settings()


def test_a_flag_wins_over_its_environment_twin() -> None:
    environment = {"GPUDIAG_NODE_TIMEOUT": "2s", "GPUDIAG_AGENT_PORT": "1234"}
    settings = parse(["--node-timeout", "500ms"], environment)
    assert (settings.node_timeout, settings.agent_port) == (0.5, 1234)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert parse([], {"GPUDIAG_NAMESPACE": ""}).namespace == "gpudiag-system"


@pytest.mark.parametrize(
    ("text", "address"),
    [(":9811", ("", 9811)), ("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:9811", ("::1", 9811))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse(["--metrics-addr", text], {}).metrics_addr == address


def test_values_are_read_once_and_for_all(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.touch()
    settings = parse(
        [
            *("--kubeconfig", str(kubeconfig), "--agent-selector", "app=agent,tier in (a,b)"),
            *("--mirror-labels", "pool, topology.kubernetes.io/zone", "--breaker-failure-rate", "25%"),
            *("--unreachable-after", "1m30s", "--write-rate", "0.5", "--log-level", "DEBUG", "--log-format", "text"),
        ],
        {},
    )
    assert settings.kubeconfig == str(kubeconfig)
    assert settings.mirror_labels == ("pool", "topology.kubernetes.io/zone")
    assert (settings.breaker_failure_rate, settings.unreachable_after, settings.write_rate) == (0.25, 90.0, 0.5)
    assert (settings.log_level, settings.log_format) == ("debug", "text")


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--agent-port", "0", "a port from 1 to 65535"),
        ("--agent-port", "٣", "a port from 1 to 65535"),
        ("--metrics-addr", "::1:80", "HOST:PORT"),
        ("--metrics-addr", "localhost", "HOST:PORT"),
        ("--metrics-addr", ":70000", "HOST:PORT"),
        ("--agent-selector", "a==b==c", "a label selector such as"),
        ("--gpu-node-selector", " ", "a label selector that is not empty"),
        ("--mirror-labels", "a,,b", "label keys joined by commas"),
        ("--node-timeout", "5", "a duration from 100ms to 1m"),
        ("--node-timeout", "2m", "a duration from 100ms to 1m"),
        ("--max-concurrency", "0", "a whole number from 1 to 10000"),
        ("--breaker-failure-rate", "0%", "a percentage from 1% to 100%"),
        ("--write-rate", "nan", "a number from 0.1 to 1000"),
        ("--log-level", "loud", "one of debug, info, warning, error"),
        ("--namespace", "Not_A_Name", "the name of a namespace"),
        ("--kubeconfig", "/does/not/exist", "the path of an existing file"),
    ],
)
def test_a_wrong_value_is_one_sentence(flag: str, value: str, allowed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([flag, value], {})
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"gpudiag-operator: {flag} must be ")
    assert allowed in said
    assert said.count("\n") == 1


def test_a_wrong_variable_is_named_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([], {"GPUDIAG_MAX_RUNS": "many"})
    assert "GPUDIAG_MAX_RUNS must be a whole number" in capsys.readouterr().err


def test_flags_that_contradict_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--breaker-open", "10m"], {})
    assert "--breaker-open-max must be at least --breaker-open" in capsys.readouterr().err


def test_an_unknown_flag_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--no-such-flag"], {})
    assert ended.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err


def test_help_shows_every_flag_with_default_and_twin(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"], {})
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for field in Settings.__dataclass_fields__:
        assert f"--{field.replace('_', '-')}" in said
        assert f"$GPUDIAG_{field.upper()}" in said
    assert "examples:" in said
    assert "(default 5s)" in said


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_answer_without_the_heavy_imports(flag: str) -> None:
    program = (
        f"import sys; sys.argv = ['gpudiag-operator', '{flag}']\n"
        "from gpudiag_operator.__main__ import main\n"
        "try:\n    main()\n"
        "finally:\n    sys.exit(1 if {'kopf', 'kubernetes', 'aiohttp', 'pydantic'} & set(sys.modules) else 0)\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "gpudiag-operator" in done.stdout
    assert time.monotonic() - began < 2  # 0.1 s; a machine that is busy gets some slack
