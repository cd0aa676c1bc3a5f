"""Faults that only the host shows (facts, sections 6.4, 6.5, 6.7 and 6.8): adapters, services, modules, the PCI bus."""

from collections.abc import Callable, Mapping

import msgspec

from gpudiag_agent.host.facts import FABRIC_MANAGER, IMEX, Daemon, HostFacts, KernelDriver, Port
from gpudiag_api.vocabulary import Action, Check

from . import needs
from .gpu_faults import AT_ONCE, HOUR, NOBODY, NONE, RESEAT, SITE, SOFT, C, I, Judged, W, fault
from .model import Clear, Fault, calm
from .node import INTERVAL, Node

COUNTERS = {
    "symbol_error": 7, "link_error_recovery": 0, "local_link_integrity_errors": 0, "excessive_buffer_overrun_errors": 0,
    "roce_slow_restart": 0, "link_downed": 0,
}  # fmt: skip
PORTS = tuple(
    Port(
        device=f"mlx5_{number}", port=1, pci=f"0000:{0x80 + number:02x}:00.0", board="MT_0000000838",
        link_layer="InfiniBand", state="ACTIVE", physical_state="LinkUp", rate_gbps=400.0, counters=COUNTERS,
    )
    for number in range(4)
)  # fmt: skip
OLD_MODULE, OPEN_MODULE = KernelDriver("570.133.20", open=False), KernelDriver("570.133.20", open=True)
PEERMEM: Mapping[str, tuple[str, ...]] = {"ib_core": ("nvidia_peermem", "mlx5_ib"), "nvidia_peermem": (), "nvidia": ()}


def ported(host: HostFacts) -> HostFacts:
    """A node with four adapters that share memory with the GPUs."""
    return msgspec.structs.replace(host, ports=PORTS, modules=PEERMEM, kernel_driver=OLD_MODULE)


def _port(**changes: object) -> Callable[[HostFacts], HostFacts]:
    """One of the adapters is otherwise."""

    def change(host: HostFacts) -> HostFacts:
        ports = list(host.ports or ())
        ports[2] = msgspec.structs.replace(ports[2], **changes)
        return msgspec.structs.replace(host, ports=tuple(ports))

    return change


def _counting(**counters: int) -> Callable[[HostFacts], HostFacts]:
    return _port(counters={**COUNTERS, **counters})


def _with(**changes: object) -> Callable[[HostFacts], HostFacts]:
    return lambda host: msgspec.structs.replace(host, **changes)


def port(name: str, host: Callable[[HostFacts], HostFacts], reason: str, judged: Judged, *clears: Clear,
         after: float = 0.0) -> Fault:  # fmt: skip
    return fault(
        f"InfiniBand: {name}", "6.8 InfiniBand", {}, Check.INFINIBAND, reason, judged, *clears, subject="link",
        link="mlx5_2/1", host=host, host_before=ported, after=after,
    )  # fmt: skip


def _flapping(node: Node, _: str) -> None:
    for _drop in range(3):
        up = node.host
        node.host = _port(state="DOWN", physical_state="Polling", rate_gbps=None, counters={})(up)
        node.look()
        node.host = up
        node.looks(2 * INTERVAL)


def _restarting(name: str) -> Callable[[Node, str], None]:
    def story(node: Node, _: str) -> None:
        for number in range(3):
            node.host = msgspec.structs.replace(
                node.host, daemons={**(node.host.daemons or {}), name: Daemon(pid=1000 + number, started=number)}
            )
            node.look()

    return story


ADAPTERS = (
    port("a port goes down", _port(state="DOWN", physical_state="Polling", rate_gbps=None, counters={}), "PortDown",
         (C, SITE, RESEAT), AT_ONCE, after=240),
    port("a port is switched off", _port(state="DOWN", physical_state="Disabled", rate_gbps=None, counters={}),
         "PortDown", (I, SITE, NONE), AT_ONCE, after=240),
    port("a port below its rate", _port(rate_gbps=100.0), "RateReduced", (W, SITE, RESEAT), AT_ONCE, after=300),
    port("symbol errors", _counting(symbol_error=500), "SymbolErrors", (W, SITE, RESEAT), calm(2 * HOUR)),
    port("recoveries", _counting(link_error_recovery=20), "LinkRecoveries", (W, SITE, RESEAT), calm(15 * 60)),
    port("integrity errors", _counting(local_link_integrity_errors=1), "LinkFaults", (W, SITE, RESEAT), calm(HOUR)),
    port("buffer overruns", _counting(excessive_buffer_overrun_errors=1), "LinkFaults", (W, SITE, RESEAT), calm(HOUR)),
    port("congestion", _counting(roce_slow_restart=5000), "Congestion", (I, SITE, NONE), calm(15 * 60)),
    fault("InfiniBand: a port flaps", "6.8 InfiniBand", {}, Check.INFINIBAND, "LinkFlapping", (W, SITE, RESEAT),
          calm(2 * HOUR), subject="link", link="mlx5_2/1", host_before=ported, story=_flapping),
)  # fmt: skip

_FM_JUDGED = (SOFT, Action.RESTART_FABRIC_MANAGER)
SERVICES = (
    fault("Fabric Manager away, fabric not joined", "6.4 fabric-manager", {}, Check.FABRIC_MANAGER, "NotRunning",
          (C, *_FM_JUDGED), AT_ONCE, subject="node", host=_with(daemons={}), after=60,
          needs=(needs.NVSWITCHES, needs.NOT_JOINED)),
    fault("Fabric Manager away, fabric joined", "6.4 fabric-manager", {}, Check.FABRIC_MANAGER, "NotRunning",
          (W, *_FM_JUDGED), AT_ONCE, subject="node", host=_with(daemons={}), after=60,
          needs=(needs.NVSWITCHES, needs.FABRIC)),
    fault("Fabric Manager restarts again and again", "6.4 fabric-manager", {}, Check.FABRIC_MANAGER, "Flapping",
          (W, *_FM_JUDGED), calm(600), subject="node", story=_restarting(FABRIC_MANAGER), needs=(needs.NVSWITCHES,)),
    fault("IMEX ran and is away", "6.4 IMEX", {}, Check.IMEX, "NotRunning", (W, *_FM_JUDGED), AT_ONCE, subject="node",
          host=lambda host: msgspec.structs.replace(host, daemons={}), after=60, needs=(needs.RACK,),
          host_before=_with(imex_nodes=18, daemons={IMEX: Daemon(pid=5, started=5)})),
    fault("IMEX was never seen to run", "6.4 IMEX", {}, Check.IMEX, "NotRunning", (I, NOBODY, NONE), AT_ONCE,
          subject="node", host=_with(imex_nodes=18), after=60, needs=(needs.RACK,)),
    fault("IMEX restarts again and again", "6.4 IMEX", {}, Check.IMEX, "Flapping", (W, *_FM_JUDGED), calm(600),
          subject="node", story=_restarting(IMEX), needs=(needs.RACK,),
          host_before=_with(imex_nodes=18, daemons={IMEX: Daemon(pid=5, started=5)})),
    fault("nvidia-peermem no longer in use", "6.7 peermem", {}, Check.PEER_MEMORY, "Detached", (W, SOFT, NONE),
          AT_ONCE, subject="node", host_before=ported, host=_with(modules={"ib_core": ("mlx5_ib",), "nvidia": ()}),
          after=300),
)  # fmt: skip

REGISTRATION = tuple(
    fault(f"fabric: registration {words}", "6.4 fabric", {"gpu.T.fabric.state": state}, Check.FABRIC,
          "RegistrationPending", (W, *_FM_JUDGED), AT_ONCE, needs=(needs.FABRIC, needs.SEVERAL), after=300)
    for state, words in ((1, "not started"), (2, "under way"))
)  # fmt: skip

ALL: tuple[Fault, ...] = (*ADAPTERS, *SERVICES, *REGISTRATION)
