"""Scenario files: what they mean over time, and what is said about mistakes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gpudiag_cli.errors import CommandError
from gpudiag_cli.simulator import Fleet, specs
from gpudiag_cli.simulator.director import Director
from gpudiag_cli.simulator.scenario import Scenario, load, parse

FLEET = """
nodes:
  - {count: 3, labels: {pool: training, zone: a}}
  - {count: 2, machine: t4-1, name: infer, labels: {pool: inference, zone: a}}
"""


def scenario(faults: str) -> Scenario:
    return parse(yaml.safe_load(f"{FLEET}\nfaults:\n{faults}"))


def active(parsed: Scenario, at: float) -> dict[str, list[str]]:
    return {node: [str(each.fault) for each in timed] for node, timed in parsed.active(at).items()}


class TestNodes:
    def test_are_numbered_by_name(self) -> None:
        names = [spec.name for spec in scenario("").nodes]
        assert names == ["gpu-01", "gpu-02", "gpu-03", "infer-01", "infer-02"]

    def test_groups_of_a_name_are_numbered_on(self) -> None:
        nodes = parse({"nodes": [{"count": 2}, {"count": 1, "machine": "t4-1"}, {"first": 10, "count": 1}]}).nodes
        assert [spec.name for spec in nodes] == ["gpu-01", "gpu-02", "gpu-03", "gpu-10"]
        assert [spec.machine.gpu_count for spec in nodes] == [8, 8, 1, 8]

    def test_numbers_have_the_digits_of_the_last(self) -> None:
        nodes = parse({"nodes": [{"count": 120}]}).nodes
        assert (nodes[0].name, nodes[-1].name) == ("gpu-001", "gpu-120")

    def test_come_from_elsewhere_where_the_file_has_none(self) -> None:
        assert parse({"faults": [{"node": "gpu-02", "fault": "hot"}]}, specs(3)).nodes == tuple(specs(3))


class TestTime:
    def test_a_fault_begins_and_ends(self) -> None:
        parsed = scenario("  - {at: 10s, node: gpu-02, fault: xid-79, for: 5s}")
        assert active(parsed, 9.9) == {}
        assert active(parsed, 10) == {"gpu-02": ["xid-79"]}
        assert active(parsed, 15) == {}

    def test_without_times_it_is_there_from_the_start_for_ever(self) -> None:
        parsed = scenario("  - {node: gpu-02, fault: hot}")
        assert active(parsed, 0) == active(parsed, 1e6) == {"gpu-02": ["hot"]}

    def test_faults_of_a_node_come_oldest_first(self) -> None:
        parsed = scenario("  - {at: 2s, node: gpu-01, fault: hot}\n  - {at: 1s, node: gpu-01, fault: ecc}")
        assert active(parsed, 3) == {"gpu-01": ["ecc", "hot"]}


class TestTargets:
    @pytest.mark.parametrize(
        ("target", "nodes"),
        [
            ("gpu-03", {"gpu-03"}),
            ("gpu-*", {"gpu-01", "gpu-02", "gpu-03"}),
            ("pool=inference", {"infer-01", "infer-02"}),
            ("pool=training,zone=a", {"gpu-01", "gpu-02", "gpu-03"}),
            ("*", {"gpu-01", "gpu-02", "gpu-03", "infer-01", "infer-02"}),
        ],
    )
    def test_name_pattern_or_labels(self, target: str, nodes: set[str]) -> None:
        assert active(scenario(f"  - {{node: '{target}', fault: html}}"), 0).keys() == nodes


class TestMistakes:
    @pytest.mark.parametrize(
        ("document", "says"),
        [
            ({}, r"^nodes: there are none"),
            ([], r"^nodes: there are none"),
            ({"nodes": [{"count": 0}]}, r"^nodes\[0\]\.count: expected int >= 1"),
            ({"nodes": [{"count": "many"}]}, r"^nodes\[0\]\.count: expected int, got str"),
            ({"nodes": [{"machine": "h900"}]}, r"^nodes\[0\]\.machine: 'h900' is none of h100-8"),
            ({"nodes": [{"name": "GPU_"}]}, r"^nodes\[0\]\.name: 'GPU_' cannot begin"),
            ({"nodes": [{"count": 3}, {"first": 2}]}, r"^nodes\[1\]\.first: gpu is numbered up to 3"),
            ({"nodes": [{"cuont": 3}]}, r"^nodes\[0\]: object contains unknown field cuont"),
            ({"faults": {}}, r"^faults: expected array"),
            ("text", r"^expected object, got str"),
        ],
    )
    def test_of_the_file(self, document: Any, says: str) -> None:
        with pytest.raises(ValueError, match=says):
            parse(document)

    @pytest.mark.parametrize(
        ("fault", "says"),
        [
            ({"node": "gpu-01"}, r"^faults\[0\]: object missing required field fault"),
            ({"node": "gpu-01", "fault": "broken"}, r"^faults\[0\]\.fault: 'broken' is none of xid-79"),
            (
                {"node": "gpu-09", "fault": "hot"},
                r"^faults\[0\]\.node: 'gpu-09' fits no node.*The first node is gpu-01",
            ),
            ({"node": "pool=none", "fault": "hot"}, r"^faults\[0\]\.node: 'pool=none' fits no node"),
            ({"node": "gpu-01", "fault": "hot", "at": "10"}, r"^faults\[0\]\.at: '10' is not a duration"),
            ({"node": "gpu-01", "fault": "hot", "for": "-1s"}, r"^faults\[0\]\.for: '-1s' is not a duration"),
            ({"node": "gpu-01", "fault": "latency", "latency": "slow"}, r"^faults\[0\]\.latency: 'slow'"),
            ({"node": "infer-01", "fault": "hot", "gpu": 1}, r"^faults\[0\]\.gpu: infer-01 has GPUs 0 to 0, no 1"),
            ({"node": "gpu-01", "fault": "hot", "gpu": -1}, r"^faults\[0\]\.gpu: expected int >= 0"),
        ],
    )
    def test_of_a_fault(self, fault: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            parse({**yaml.safe_load(FLEET), "faults": [fault]})

    def test_of_the_path(self, tmp_path: Path) -> None:
        with pytest.raises(CommandError, match=r"missing\.yaml cannot be read: No such file"):
            load(tmp_path / "missing.yaml")

    def test_of_the_syntax(self, tmp_path: Path) -> None:
        path = tmp_path / "scenario.yaml"
        path.write_text("nodes: [")
        with pytest.raises(CommandError, match="is not YAML"):
            load(path)

    def test_name_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "scenario.yaml"
        path.write_text("nodes: [{count: 0}]")
        with pytest.raises(CommandError, match=r"scenario\.yaml has a mistake: nodes\[0\]\.count"):
            load(path)


class TestDirector:
    async def test_follows_the_clock(self) -> None:
        now, said = [1000.0], list[str]()
        parsed = parse(
            {
                "nodes": [{"count": 2}],
                "faults": [{"at": "5s", "for": "10s", "node": "gpu-02", "fault": "ecc", "gpu": 4}],
            }
        )
        async with Fleet(parsed.nodes) as fleet:
            director = Director(fleet, parsed, say=said.append, clock=lambda: now[0])
            await director.step()
            assert not fleet["gpu-02"].faults
            now[0] += 6
            await director.step()
            assert [(each.fault, each.gpu, each.since) for each in fleet["gpu-02"].faults] == [("ecc", 4, 1006.0)]
            await director.step()
            now[0] += 10
            await director.step()
            assert not fleet["gpu-02"].faults
        assert said == ["gpu-02: ecc", "gpu-02: no fault any more"]

    async def test_takes_up_a_changed_file_and_keeps_the_old_one_through_a_mistake(self, tmp_path: Path) -> None:
        said = list[str]()
        path = tmp_path / "scenario.yaml"
        path.write_text("nodes: [{count: 2}]\nfaults:\n")
        parsed = load(path)
        async with Fleet(parsed.nodes) as fleet:
            director = Director(fleet, parsed, path=path, say=said.append)

            async def append(line: str) -> None:
                with path.open("a") as file:
                    file.write(line + "\n")
                await director.step()

            await append("  - {node: gpu-01, fault: refuse}")
            assert [each.fault for each in fleet["gpu-01"].faults] == ["refuse"]
            await append("  - {node: gpu-02, fault: nonsense}")
            assert [each.fault for each in fleet["gpu-01"].faults] == ["refuse"]
            path.write_text("nodes: [{count: 3}]\nfaults: [{node: gpu-02, fault: hot}]")
            await director.step()
            assert not fleet["gpu-01"].faults
            assert len(fleet["gpu-02"].faults) == 1
        assert any("nonsense" in line and "goes on" in line for line in said)
        assert any("at the next start" in line for line in said)

    async def test_leaves_faults_alone_that_others_set(self) -> None:
        parsed = parse({"nodes": [{"count": 2}], "faults": [{"node": "gpu-02", "fault": "hot"}]})
        async with Fleet(parsed.nodes) as fleet:
            await fleet.set_fault("gpu-01", "ecc")
            await Director(fleet, parsed, say=lambda _: None).step()
            assert [each.fault for each in fleet["gpu-01"].faults] == ["ecc"]
