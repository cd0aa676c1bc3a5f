"""The simulator: a fleet of agents in one process, for demo, tests, measurements and a look around.

What is simulated is the agents' side of the HTTP contract, faults included, and the Nodes and Pods by which the
operator finds them. Everything behind that, from discovery to status, is the real thing.
"""

from gpudiag_cli.simulator.cluster import Cluster, Member
from gpudiag_cli.simulator.faults import Fault, Injected
from gpudiag_cli.simulator.fleet import Fleet, specs
from gpudiag_cli.simulator.machines import MACHINES, Machine
from gpudiag_cli.simulator.node import SimulatedNode
from gpudiag_cli.simulator.report import NodeSpec

__all__ = [
    "MACHINES",
    "Cluster",
    "Fault",
    "Fleet",
    "Injected",
    "Machine",
    "Member",
    "NodeSpec",
    "SimulatedNode",
    "specs",
]
