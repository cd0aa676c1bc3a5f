"""The flags for the kernel log's substitutes and for the memory over restarts."""

from pathlib import Path

import pytest

from gpudiag_agent import options
from gpudiag_agent.options import Options
from gpudiag_agent.run import Agent
from gpudiag_agent.sample import Sample


def parse(*arguments: str, **environment: str) -> Options:
    return options.parse(["--node-name", "n", *arguments], environment)


KMSG, JOURNAL = Path("/dev/kmsg"), Path("/var/log/journal")


@pytest.mark.parametrize(
    ("arguments", "kmsg", "journal"),
    [
        ([], KMSG, JOURNAL),
        (["--journal", "/run/log/journal"], KMSG, Path("/run/log/journal")),
        (["--journal", "none"], KMSG, None),
        (["--kmsg", "none"], None, JOURNAL),
        (["--kmsg", "none", "--journal", "none"], None, None),
        (["--kmsg", "/tmp/log"], Path("/tmp/log"), None),
        (["--kmsg", "/tmp/log", "--journal", "/tmp/export"], Path("/tmp/log"), Path("/tmp/export")),
        (["--source", "simulated"], None, None),
        (["--source", "simulated", "--kmsg", "/tmp/log"], Path("/tmp/log"), None),
    ],
)
def test_a_kernel_log_that_was_named_has_no_substitute_unless_that_is_named_too(
    arguments: list[str], kmsg: Path | None, journal: Path | None
) -> None:
    asked = parse(*arguments)
    assert (asked.kmsg, asked.journal) == (kmsg, journal)


def test_the_memory_is_off_unless_asked_for(tmp_path: Path) -> None:
    assert parse().state_dir is None
    assert parse("--state-dir", str(tmp_path / "new")).state_dir == tmp_path / "new"
    assert parse(GPUDIAG_STATE_DIR=str(tmp_path), GPUDIAG_JOURNAL="none").state_dir == tmp_path


def test_a_file_is_no_folder_for_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as caught:
        parse("--state-dir", str(tmp_path / "file"))
    said = capsys.readouterr().err
    assert (caught.value.code, said.count("\n")) == (options.EXIT_USAGE, 1)
    assert "--state-dir" in said
    assert "no folder" in said


async def test_a_node_whose_kernel_log_nobody_reads_says_so(tmp_path: Path) -> None:
    from_nowhere = parse("--kmsg", "none", "--journal", "none", "--sysfs-pci", str(tmp_path))
    assert "--kmsg and --journal" in str(Agent(from_nowhere, source=NoGPUs())._assessor.kernel_log_problem)


class NoGPUs:
    """A source that is never asked."""

    async def sample(self) -> Sample:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
