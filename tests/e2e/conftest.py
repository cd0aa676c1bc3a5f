"""The cluster of the end-to-end suite (providers.py), and a line at the end that says on which one it ran."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e import providers
from tests.e2e.cluster import Cluster

CHOICE = pytest.StashKey[providers.Choice]()


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the images of this checkout, and nothing of gpudiag in it yet."""
    choice = request.config.stash[CHOICE] = providers.chosen(request.config)
    folder = tmp_path_factory.mktemp("e2e")
    match choice.provider:
        case "":
            pytest.skip(str(choice))
        case "existing":
            kubeconfig = Path(request.config.getoption("kubeconfig")).expanduser().resolve()
            with providers.on_existing(kubeconfig, folder) as cluster:
                yield cluster
        case "kind":
            with providers.on_kind(request, folder) as cluster:
                yield cluster
        case _:
            with providers.on_this_machine(folder) as cluster:
                yield cluster


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if (choice := terminalreporter.config.stash.get(CHOICE, None)) is not None:
        terminalreporter.write_line(f"The end-to-end suite {choice}")
