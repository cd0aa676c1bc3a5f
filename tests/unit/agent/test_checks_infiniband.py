"""Ports of adapters and the module between them and the GPUs: what raises, what clears, what is no fault."""

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.checks.base import Problem, View
from gpudiag_agent.checks.counters import Counters
from gpudiag_agent.checks.infiniband.baseline import KEPT, MAX_PORTS, PortBaseline
from gpudiag_agent.checks.infiniband.rule import InfiniBand
from gpudiag_agent.checks.peer_memory.rule import PeerMemory
from gpudiag_agent.host.facts import HostFacts, KernelDriver, Port
from gpudiag_agent.sample import GPUSample, Sample, SourceFault
from gpudiag_agent.thresholds import InfiniBandLimits, Thresholds
from gpudiag_api.vocabulary import Action, Blame, Capability, Severity

START = 1_800_000_000.0
MINUTE, HOUR = 60.0, 3600.0
CABLE = (Blame.ENVIRONMENT, Action.RESEAT_OR_CHECK_LINK)


def port(number: int = 0, *, up: bool = True, **values: object) -> Port:
    usual: dict[str, object] = {
        "board": "MT_0000000838",
        "link_layer": "InfiniBand",
        "state": "ACTIVE" if up else "DOWN",
        "physical_state": "LinkUp" if up else "Polling",
        "rate_gbps": 400.0 if up else 10.0,
    }
    return Port(device=f"mlx5_{number}", port=1, pci=f"0000:{number:02x}:00.0", **{**usual, **values})  # type: ignore[arg-type]


def rails(*changed: Port, count: int = 8) -> tuple[Port, ...]:
    others = {one.device: one for one in changed}
    return tuple(others.get(f"mlx5_{number}", port(number)) for number in range(count))


class Node:
    """The check on a node that looks every 10 s."""

    def __init__(self, *, limits: InfiniBandLimits | None = None, baseline: PortBaseline | None = None) -> None:
        self.now = START
        self.baseline = baseline or PortBaseline()
        self.check = InfiniBand(Counters("boot"), self.baseline)
        self.limits = Thresholds(infiniband=limits or InfiniBandLimits())
        self.uptime: float | None = 10_000.0

    def see(self, ports: Iterable[Port] | None, *, seconds: float = 10) -> list[Problem]:
        self.now += seconds
        found = None if ports is None else tuple(ports)
        host = HostFacts(taken_at=self.now, ports=found, uptime_seconds=self.uptime)
        sample = Sample(taken_at=self.now, host=host)
        self.check.observe(sample)
        return list(self.check.judge(View(now=self.now, sample=sample, host=host, thresholds=self.limits)))

    def keep(self, ports: Iterable[Port], seconds: float) -> list[Problem]:
        kept = tuple(ports)
        found: list[Problem] = []
        for _ in range(int(seconds // 10)):
            found = self.see(kept)
        return found


def told(problems: Iterable[Problem]) -> list[tuple[str, Severity, str | None]]:
    return [(one.reason, one.severity, one.subject.link) for one in problems]


class TestDown:
    @pytest.mark.parametrize(
        ("values", "severity", "words"),
        [
            ({}, Severity.CRITICAL, "check cable"),
            ({"physical_state": "LinkUp", "state": "INIT"}, Severity.CRITICAL, "subnet manager"),
            ({"physical_state": "Disabled"}, Severity.INFO, "switched it off"),
            ({"link_layer": "Ethernet"}, Severity.CRITICAL, "check cable"),
        ],
    )
    def test_a_port_that_was_up(self, values: dict[str, object], severity: Severity, words: str) -> None:
        node = Node()
        assert node.see(rails()) == []
        down = rails(port(3, up=False, **values))
        assert node.keep(down, 240) == []
        (problem,) = node.see(down)
        assert told([problem]) == [("PortDown", severity, "mlx5_3/1")]
        assert words in problem.message
        assert problem.blame is Blame.ENVIRONMENT
        assert problem.action is (Action.NONE if severity is Severity.INFO else Action.RESEAT_OR_CHECK_LINK)
        assert problem.evidence[0].threshold == "ACTIVE"
        assert node.see(rails()) == []

    def test_a_slow_ethernet_port_carries_no_jobs(self) -> None:
        node = Node()
        node.see((port(link_layer="Ethernet", rate_gbps=25.0),))
        assert told(node.keep((port(up=False, link_layer="Ethernet"),), 300)) == [
            ("PortDown", Severity.WARNING, "mlx5_0/1")
        ]

    def test_a_port_without_a_cable_is_no_fault(self) -> None:
        node = Node()
        assert node.keep(rails(port(3, up=False)), 3600) == []

    def test_a_short_drop_is_no_fault(self) -> None:
        node = Node()
        node.see(rails())
        for _ in range(2):
            assert node.keep(rails(port(3, up=False)), 200) == []
            assert node.keep(rails(), 60) == []

    def test_it_is_known_after_a_restart_and_forgotten_after_a_week(self) -> None:
        before = Node()
        before.see(rails())
        assert before.keep(rails(port(3, up=False)), 300)
        baseline = PortBaseline()
        baseline.load(msgspec.json.decode(msgspec.json.encode(before.baseline.dump())))
        after = Node(baseline=baseline)
        after.now = before.now
        assert told(after.see(rails(port(3, up=False)))) == [("PortDown", Severity.CRITICAL, "mlx5_3/1")]
        assert after.see(rails(port(3, up=False)), seconds=KEPT) == []

    def test_a_port_that_trains_while_the_node_boots_has_its_time(self) -> None:
        before = Node()
        before.see(rails())
        after = Node(baseline=before.baseline)
        after.now = before.now + 600
        assert after.keep(rails(port(3, up=False)), 240) == []

    def test_what_cannot_be_seen_is_not_judged(self) -> None:
        node = Node()
        node.see(rails())
        node.keep(rails(port(3, up=False)), 300)
        assert node.see(None) == []
        assert node.keep(rails(port(3, state="", physical_state="")), 600) == []

    def test_a_look_that_was_judged_already_is_no_second_look(self) -> None:
        node = Node()
        node.see(rails())
        host = HostFacts(taken_at=node.now, ports=rails(port(3, up=False)))
        for _ in range(5):
            node.check.observe(Sample(taken_at=node.now, host=host))
        known = node.baseline.of("0000:03:00.0/1")
        assert known is not None
        assert known.looks == 0


class TestRates:
    def test_slower_than_it_was(self) -> None:
        node = Node()
        node.see(rails())
        slow = rails(port(3, rate_gbps=200.0))
        assert node.keep(slow, 300) == []
        (problem,) = node.see(slow)
        assert told([problem]) == [("RateReduced", Severity.WARNING, "mlx5_3/1")]
        assert (problem.blame, problem.action) == CABLE
        shown = problem.evidence[0]
        assert (shown.value, shown.threshold, shown.unit) == ("200", "400", "Gb/s")
        assert node.see(rails()) == []

    def test_a_rate_that_was_lowered_on_purpose(self) -> None:
        node = Node()
        node.see((port(),))
        assert node.keep((port(rate_gbps=200.0),), 400)
        assert node.see((port(rate_gbps=200.0),), seconds=KEPT) == []

    def test_slower_than_its_peers(self) -> None:
        node = Node()
        assert node.keep(rails(port(3, rate_gbps=200.0)), 300) == []
        assert told(node.see(rails(port(3, rate_gbps=200.0)))) == [("SlowerThanPeers", Severity.INFO, "mlx5_3/1")]
        assert node.see(rails()) == []

    @pytest.mark.parametrize(
        "ports",
        [
            rails(port(8, board="BlueField", rate_gbps=100.0), count=9),
            rails(port(8, link_layer="Ethernet", rate_gbps=100.0), count=9),
            rails(*(port(number, rate_gbps=200.0) for number in range(4, 8))),
            (port(0), port(1), port(2, rate_gbps=200.0)),
        ],
        ids=["another board", "another link layer", "half and half", "too few"],
    )
    def test_ports_of_another_kind_are_no_peers(self, ports: tuple[Port, ...]) -> None:
        assert Node().keep(ports, 900) == []


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "limit", "reason", "severity", "clears_after"),
        [
            ("link_downed", 2, "LinkFlapping", Severity.WARNING, 2 * HOUR),
            ("symbol_error", 120, "SymbolErrors", Severity.WARNING, 2 * HOUR),
            ("link_error_recovery", 5, "LinkRecoveries", Severity.WARNING, 15 * MINUTE),
            ("local_link_integrity_errors", 0, "LinkFaults", Severity.WARNING, HOUR),
            ("excessive_buffer_overrun_errors", 0, "LinkFaults", Severity.WARNING, HOUR),
            ("roce_slow_restart", 600, "Congestion", Severity.INFO, 15 * MINUTE),
        ],
    )
    def test_more_than_the_limit(
        self, name: str, limit: int, reason: str, severity: Severity, clears_after: float
    ) -> None:
        node, old = Node(), 10**6
        assert node.see(rails(port(3, counters={name: old}))) == [], "what a counter holds is never judged"
        assert node.see(rails(port(3, counters={name: old + limit}))) == []
        bad = rails(port(3, counters={name: old + limit + 1}))
        (problem,) = node.see(bad)
        assert told([problem]) == [(reason, severity, "mlx5_3/1")]
        assert problem.action is (Action.NONE if severity is Severity.INFO else Action.RESEAT_OR_CHECK_LINK)
        assert (problem.evidence[0].value, problem.evidence[0].threshold) == (str(limit + 1), str(limit))
        began = node.now
        while node.see(bad):
            assert node.now - began < clears_after * 1.2 + 60
        assert node.now - began > clears_after * 0.8 - 60

    def test_a_reset_of_the_adapter_is_no_error(self) -> None:
        node = Node()
        node.see(rails(port(3, counters={"symbol_error": 10**6})))
        assert node.see(rails(port(3, counters={"symbol_error": 2}))) == []

    def test_flapping_that_the_looks_see_themselves(self) -> None:
        node = Node()
        node.see(rails())
        found = []
        for _ in range(3):
            node.keep(rails(port(3, up=False)), 30)
            found = node.keep(rails(), 30)
        assert told(found) == [("LinkFlapping", Severity.WARNING, "mlx5_3/1")]
        assert found[0].evidence[0].value == "3"

    def test_drops_that_both_saw_count_once(self) -> None:
        node = Node()
        for drops in range(3):
            assert node.keep(rails(port(3, counters={"link_downed": drops})), 30) == []
            assert node.keep(rails(port(3, up=False)), 30 if drops < 2 else 0) == []

    def test_limits_are_configuration(self) -> None:
        node = Node(limits=InfiniBandLimits(symbol_errors_per_hour=5))
        node.see(rails(port(3, counters={"symbol_error": 0})))
        assert told(node.see(rails(port(3, counters={"symbol_error": 6})))) == [
            ("SymbolErrors", Severity.WARNING, "mlx5_3/1")
        ]


class TestExpectedPorts:
    LIMITS = InfiniBandLimits(active_ports=8, lowest_gbps=400)

    @pytest.mark.parametrize("missing", [port(3, up=False), port(3, rate_gbps=200.0)])
    def test_fewer_than_the_node_should_have(self, missing: Port) -> None:
        (problem,) = Node(limits=self.LIMITS).see(rails(missing))
        assert told([problem]) == [("FewerPorts", Severity.CRITICAL, None)]
        assert (problem.evidence[0].value, problem.evidence[0].threshold) == ("7", "8")
        assert Node(limits=self.LIMITS).see(rails()) == []

    def test_a_drop_has_its_time_and_a_boot_too(self) -> None:
        node = Node(limits=self.LIMITS)
        node.see(rails())
        assert node.keep(rails(port(3, up=False)), 240) == []
        assert "FewerPorts" in {one.reason for one in node.see(rails(port(3, up=False)))}
        booting = Node(limits=self.LIMITS)
        booting.uptime = 100.0
        assert booting.see(rails(port(3, up=False))) == []


class TestBaseline:
    @pytest.mark.parametrize("stored", [None, [], {"p": 1}, {"p": {"up_at": -1}}, {"p": {"up_at": 1.0, "looks": -1}}])
    def test_a_memory_that_is_none_is_refused_whole(self, stored: object) -> None:
        baseline = PortBaseline()
        baseline.take((port(),), START)
        with pytest.raises(msgspec.ValidationError):
            baseline.load(stored)
        assert baseline.of(port().key) is not None

    def test_it_is_bounded(self) -> None:
        baseline = PortBaseline()
        baseline.take(tuple(port(number) for number in range(MAX_PORTS + 20)), START)
        assert len(msgspec.json.decode(msgspec.json.encode(baseline.dump()))) == MAX_PORTS

    @given(
        steps=st.lists(
            st.tuples(st.sampled_from(["ACTIVE", "DOWN", "INIT", ""]), st.sampled_from([None, 200.0, 400.0])),
            max_size=40,
        )
    )
    def test_whatever_a_port_does_the_memory_can_be_kept_and_taken_up(
        self, steps: list[tuple[str, float | None]]
    ) -> None:
        node = Node()
        for state, rate in steps:
            node.see((port(state=state, rate_gbps=rate),), seconds=120)
        again = PortBaseline()
        again.load(msgspec.json.decode(msgspec.json.encode(node.baseline.dump())))
        assert again.dump() == node.baseline.dump()
        if "ACTIVE" not in {state for state, _ in steps}:
            assert again.dump() == {}


ATTACHED = {"nvidia": ("nvidia_peermem",), "ib_core": ("mlx5_ib", "nvidia_peermem"), "nvidia_peermem": ()}
LOADED = {**ATTACHED, "ib_core": ("mlx5_ib",)}
BARE = {"nvidia": (), "ib_core": ("mlx5_ib",)}
PROPRIETARY, OPEN = KernelDriver("550.135", False), KernelDriver("570.86.15", True)


class Peer:
    """The check on a node with one active port."""

    def __init__(self, driver: KernelDriver | None = PROPRIETARY, ports: tuple[Port, ...] | None = (port(),)) -> None:
        self.check, self.now = PeerMemory(), START
        self.driver, self.ports = driver, ports

    def keep(self, modules: dict[str, tuple[str, ...]] | None, seconds: float, *, fault: bool = False) -> list[str]:
        problems: list[Problem] = []
        cause = SourceFault(Capability.NO_DRIVER, "none") if fault else None
        for _ in range(int(seconds // 10)):
            self.now += 10
            host = HostFacts(taken_at=self.now, ports=self.ports, modules=modules, kernel_driver=self.driver)
            sample = Sample(taken_at=self.now, host=host, gpus=(GPUSample(index=0),), fault=cause)
            self.check.observe(sample)
            problems = list(self.check.judge(View(now=self.now, sample=sample, host=host)))
        assert all(one.action is Action.NONE and one.blame is Blame.DRIVER for one in problems)
        return [f"{one.reason} {one.severity}" for one in problems]


class TestPeerMemory:
    @pytest.mark.parametrize(
        ("driver", "first", "modules", "said"),
        [
            (PROPRIETARY, ATTACHED, BARE, ["Detached Warning"]),
            (PROPRIETARY, ATTACHED, LOADED, ["Detached Warning"]),
            (OPEN, ATTACHED, BARE, ["Detached Info"]),
            (PROPRIETARY, BARE, BARE, ["NotLoaded Info"]),
            (PROPRIETARY, LOADED, LOADED, ["NotAttached Info"]),
            (OPEN, BARE, BARE, []),
            (None, BARE, BARE, []),
            (PROPRIETARY, ATTACHED, {**BARE, "ib_core": ("nv_peer_mem",)}, []),
            (PROPRIETARY, ATTACHED, {**BARE, "ib_uverbs": ("nvidia_peermem",)}, []),
        ],
    )
    def test_what_is_said(
        self,
        driver: KernelDriver | None,
        first: dict[str, tuple[str, ...]],
        modules: dict[str, tuple[str, ...]],
        said: list[str],
    ) -> None:
        peer = Peer(driver)
        assert peer.keep(first, 10) == []
        assert peer.keep(modules, 290) == []
        assert peer.keep(modules, 20) == said
        assert peer.keep(ATTACHED, 10) == []

    @pytest.mark.parametrize(
        ("ports", "modules"),
        [
            ((), BARE),
            (None, BARE),
            ((port(up=False),), BARE),
            ((port(link_layer="Ethernet", rate_gbps=100.0),), BARE),
            ((port(link_layer="Unknown"),), BARE),
            ((port(),), None),
            ((port(),), {"nvidia": ()}),
            ((port(),), {"ib_core": ()}),
        ],
        ids=["no adapter", "unknown", "no cable", "a network card", "EFA", "no procfs", "no InfiniBand", "no driver"],
    )
    def test_where_it_does_not_matter(
        self, ports: tuple[Port, ...] | None, modules: dict[str, tuple[str, ...]] | None
    ) -> None:
        assert Peer(ports=ports).keep(modules, 900) == []

    def test_fast_ethernet_carries_jobs_too(self) -> None:
        assert Peer(ports=(port(link_layer="Ethernet", rate_gbps=200.0),)).keep(BARE, 310) == ["NotLoaded Info"]

    def test_a_driver_that_is_being_changed(self) -> None:
        peer = Peer()
        peer.keep(ATTACHED, 10)
        assert peer.keep(BARE, 600, fault=True) == []
