"""What the host shows, from its files to the report of a whole agent, and over a restart."""

import asyncio
import json
from pathlib import Path

import pytest
from tests.unit.agent.host_tree import HostTree

from gpudiag_agent.options import parse
from gpudiag_agent.run import Agent
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_agent.state.store import StateStore


class OneGPU:
    """A driver that lists one GPU."""

    async def sample(self) -> Sample:
        return Sample(taken_at=1_800_000_000.0, gpus=(GPUSample(index=0, uuid="GPU-0", pci="00000000:3B:00.0"),))

    async def close(self) -> None: ...


@pytest.fixture
def tree(tmp_path: Path) -> HostTree:
    return HostTree(tmp_path / "host")


def agent(tree: HostTree, *more: str) -> Agent:
    places = ("--sysfs-pci", str(tree.sysfs_pci), "--sysfs-infiniband", str(tree.infiniband), "--proc", str(tree.proc))
    quiet = ("--kmsg", "none", "--journal", "none", "--pod-resources", "none", "--node-name", "n")
    return Agent(parse([*places, *quiet, *more], {}), source=OneGPU())


async def test_what_the_host_shows_reaches_the_checks(tree: HostTree, tmp_path: Path) -> None:
    tree.device("0000:3b:00.0")
    tree.device("0000:86:00.0")
    tree.adapter("mlx5_0", "0000:5e:00.0")
    limits = tmp_path / "limits.json"
    limits.write_text(json.dumps({"infiniband": {"activePorts": 2}}))
    report = await agent(tree, "--config", str(limits)).once()
    assert {(str(finding.check), finding.reason) for finding in report.findings} == {
        ("GPUCount", "GPUMissing"),
        ("InfiniBand", "FewerPorts"),
    }


async def test_nothing_is_judged_that_cannot_be_seen(tmp_path: Path) -> None:
    tree = HostTree(tmp_path / "host")
    tree.process(2, "sh")
    report = await agent(tree).once()
    assert report.findings == ()


async def test_ports_are_remembered_in_the_state_folder(tree: HostTree, tmp_path: Path) -> None:
    tree.adapter("mlx5_0", "0000:5e:00.0")
    first = agent(tree, "--state-dir", str(tmp_path / "state"))
    await first.once()
    store: StateStore = first._store
    async with asyncio.timeout(5):
        await store.close()
    again = agent(tree, "--state-dir", str(tmp_path / "state"))
    assert again._ports.of("0000:5e:00.0/1") is None
    await again._store.restore()
    assert again._ports.of("0000:5e:00.0/1") is not None
    await again._store.close()
