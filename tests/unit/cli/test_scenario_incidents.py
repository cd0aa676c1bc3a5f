"""Scripted incidents: what a share, a spread, a repetition and the seed mean, and what happens to Nodes and Pods."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gpudiag_cli.errors import CommandError
from gpudiag_cli.simulator import Fault, Fleet, SimulatedNode, specs
from gpudiag_cli.simulator.director import Director
from gpudiag_cli.simulator.scenario import Scenario, load, parse


def scenario(*faults: Mapping[str, Any], nodes: int = 200, **more: Any) -> Scenario:
    return parse({"nodes": [{"count": nodes}], "faults": list(faults), **more})


class TestShare:
    def test_is_that_part_of_the_nodes(self) -> None:
        assert len(scenario({"node": "*", "share": "10%", "fault": "hang"}).active(0)) == 20

    def test_is_one_node_at_least(self) -> None:
        assert len(scenario({"node": "gpu-00*", "share": "1%", "fault": "hang"}).active(0)) == 1

    def test_is_drawn_by_the_seed(self) -> None:
        drawn = [
            frozenset(scenario({"node": "*", "share": "10%", "fault": "hang"}, seed=n).active(0)) for n in (7, 7, 8)
        ]
        assert drawn[0] == drawn[1] != drawn[2]

    def test_does_not_change_with_a_fault_written_above(self) -> None:
        hang = {"node": "*", "share": "10%", "fault": "hang"}
        alone = scenario(hang).active(0).keys()
        both = scenario({"node": "*", "share": "5%", "fault": "hot"}, hang).active(0)
        assert {node for node, timed in both.items() if Fault.HANG in {each.fault for each in timed}} == alone


class TestTime:
    def test_a_spread_lets_nodes_begin_one_after_the_other(self) -> None:
        parsed = scenario({"at": "10s", "node": "*", "fault": "hot", "spread": "20s"})
        counts = [len(parsed.active(at)) for at in (9.9, 15, 20, 30)]
        assert counts == sorted(counts)
        assert (counts[0], counts[-1]) == (0, 200)
        assert 0 < counts[1] < counts[2] < 200

    def test_a_repetition_comes_back(self) -> None:
        parsed = scenario({"at": "10s", "node": "gpu-001", "fault": "hang", "every": "60s", "for": "20s"})
        assert [bool(parsed.active(at)) for at in (9, 10, 29, 31, 69, 70, 89, 91, 3610)] == [
            *(False, True, True, False, False, True, True, False, True)
        ]

    def test_faults_of_an_incident_count_from_it(self) -> None:
        incident = {"name": "cooling", "at": "1m", "faults": [{"at": "5s", "node": "gpu-001", "fault": "hot"}]}
        parsed = scenario(incidents=[incident])
        assert [len(parsed.active(at)) for at in (5, 64.9, 65)] == [0, 0, 1]

    def test_any_gpu_is_drawn_for_each_node(self) -> None:
        parsed = scenario({"node": "*", "fault": "hot", "gpu": "any"})
        assert {timed.gpu for timed in parsed.timed} == set(range(8))

    def test_latencies_of_a_group_are_those_of_its_nodes(self) -> None:
        (spec,) = parse({"nodes": [{"latency": "50ms", "jitter": "10ms"}]}).nodes
        assert (spec.latency, spec.jitter) == (0.05, 0.01)


class TestMistakes:
    @pytest.mark.parametrize(
        ("fault", "says"),
        [
            ({"share": "0%"}, r"^faults\[0\]\.share: '0%' is no share"),
            ({"share": "101%"}, r"^faults\[0\]\.share: '101%' is no share"),
            ({"share": "half"}, r"^faults\[0\]\.share: 'half' is no share.*such as 10%"),
            ({"every": "1m"}, r"^faults\[0\]\.every: needs a for that is shorter"),
            ({"every": "1m", "for": "1m"}, r"^faults\[0\]\.every: needs a for that is shorter"),
            ({"spread": "long"}, r"^faults\[0\]\.spread: 'long' is not a duration"),
            ({"gpu": "all"}, r"^faults\[0\]\.gpu: "),
            ({"fault": "latency", "jitter": "1"}, r"^faults\[0\]\.jitter: '1' is not a duration"),
        ],
    )
    def test_of_a_fault(self, fault: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            scenario({"node": "*", "fault": "hot", **fault})

    @pytest.mark.parametrize(
        ("more", "says"),
        [
            ({"incidents": [{"name": "x", "faults": []}]}, r"^incidents\[0\]\.faults: expected array of length >= 1"),
            ({"incidents": [{"faults": [{}]}]}, r"^incidents\[0\]"),
            (
                {"incidents": [{"name": "x", "faults": [{"node": "none", "fault": "hot"}]}]},
                r"^incidents\[0\]\.faults\[0\]\.node: 'none' fits no node",
            ),
            (
                {"incidents": [{"name": "x", "at": "1", "faults": [{"node": "*", "fault": "hot"}]}]},
                r"^incidents\[0\]\.at",
            ),
            ({"seed": -1}, r"^seed: expected int >= 0"),
            ({"nodes": [{"latency": "slow"}]}, r"^nodes\[0\]\.latency: 'slow' is not a duration"),
        ],
    )
    def test_of_the_file(self, more: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            parse({"nodes": [{"count": 2}], **more})


class TestLatency:
    async def test_differs_by_the_jitter_and_is_the_same_for_the_same_seed(self) -> None:
        (spec,) = specs(1, latency=0.05, jitter=0.02)

        def drawn(seed: int) -> list[float]:
            node = SimulatedNode(spec, "127.0.0.1", 1, seed=seed)
            return [node.delay() for _ in range(50)]

        assert drawn(7) == drawn(7) != drawn(8)
        assert all(0.03 <= delay <= 0.07 for delay in drawn(7))
        assert max(drawn(7)) - min(drawn(7)) > 0.02


class Objects:
    """Nodes and Pods that remember what happened to them."""

    def __init__(self) -> None:
        self.now: dict[str, frozenset[Fault]] = {}
        self.away = False

    async def follow(self, faults: Mapping[str, frozenset[Fault]]) -> None:
        if self.away:
            raise CommandError("The API server does not answer.")
        self.now.update(faults)


class TestCluster:
    async def test_objects_follow_and_the_agent_goes_with_its_node(self) -> None:
        now, objects = [0.0], Objects()
        parsed = scenario(
            {"at": "1s", "for": "9s", "node": "gpu-01", "fault": "node-gone"},
            {"at": "1s", "node": "gpu-02", "fault": "node-not-ready"},
            nodes=3,
        )
        async with Fleet(parsed.nodes) as fleet:
            director = Director(fleet, parsed, objects=objects, say=lambda _: None, clock=lambda: now[0])
            await director.step()
            assert objects.now == {}
            now[0] = 2
            await director.step()
            assert objects.now == {"gpu-01": {Fault.NODE_GONE}, "gpu-02": {Fault.NODE_NOT_READY}}
            assert fleet["gpu-01"].behaviour is Fault.REFUSE
            assert fleet["gpu-02"].behaviour is None
            now[0] = 11
            await director.step()
            assert objects.now["gpu-01"] == frozenset()
            assert fleet["gpu-01"].behaviour is None

    async def test_what_the_api_server_did_not_take_is_tried_again(self) -> None:
        objects, said = Objects(), list[str]()
        parsed = scenario({"node": "gpu-01", "fault": "agent-gone"}, nodes=2)
        async with Fleet(parsed.nodes) as fleet:
            director = Director(fleet, parsed, objects=objects, say=said.append)
            objects.away = True
            await director.step()
            objects.away = False
            await director.step()
        assert objects.now == {"gpu-01": {Fault.AGENT_GONE}}
        assert any("tried again" in line for line in said)

    async def test_without_objects_it_is_a_mistake(self, tmp_path: Path) -> None:
        gone = scenario({"node": "gpu-01", "fault": "node-gone"}, nodes=2)
        async with Fleet(gone.nodes) as fleet:
            with pytest.raises(CommandError, match=r"node-gone of gpu-01 happens to Nodes.*--serve-only"):
                Director(fleet, gone)
            path = tmp_path / "scenario.yaml"
            path.write_text("nodes: [{count: 2}]")
            said = list[str]()
            director = Director(fleet, load(path), path=path, say=said.append)
            path.write_text("nodes: [{count: 2}]\nfaults: [{node: gpu-01, fault: node-gone}]")
            await director.step()
            assert fleet["gpu-01"].behaviour is None
        assert any("goes on" in line for line in said)


class TestTold:
    async def test_an_incident_is_named_once_and_many_nodes_are_one_line(self) -> None:
        now, said = [0.0], list[str]()
        incident = {"name": "cooling of row A", "at": "1s", "faults": [{"node": "*", "fault": "hot"}]}
        parsed = scenario(incidents=[incident], nodes=20)
        async with Fleet(parsed.nodes) as fleet:
            director = Director(fleet, parsed, say=said.append, clock=lambda: now[0])
            for now[0] in (0.0, 2.0, 3.0):
                await director.step()
        assert said == ["incident: cooling of row A", "20 nodes (gpu-01, gpu-02, gpu-03, …): hot"]


async def test_five_thousand_agents_fit_one_process() -> None:
    """Bounded memory is the point of one process; a thousand nodes stand for five."""
    before = _rss()
    began = time.process_time()
    async with Fleet(1000) as fleet:
        for node in fleet.nodes.values():
            node.body(node.sample())
        assert (_rss() - before) / 1000 < 40 << 10
        assert len({node.address for node in fleet.nodes.values()}) == 1000
    assert time.process_time() - began < 10


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
