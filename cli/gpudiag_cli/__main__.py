"""`kubectl-gpudiag`, also `kubectl gpudiag`: the commands for people.

What a command needs is imported when it runs, so that help and mistakes answer at once.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpudiag_api import durations
from gpudiag_api.version import __version__
from gpudiag_cli.errors import CommandError

_DESCRIPTION = """\
GPU diagnostics as Kubernetes resources: see it work without a GPU and without a cluster.
To ask about a cluster you have, use kubectl itself: kubectl get gpud,gn -A
"""
_EXAMPLES = """\
examples:
  kubectl-gpudiag demo
      a control plane, 6 GPU nodes, the operator, and three faults, in about a minute; cleans up after itself
  kubectl-gpudiag up
      the same, left running for you to play with; Ctrl-C ends it
  kubectl-gpudiag simulate --nodes 200 --machine h100-8
      200 more nodes in the API server of $KUBECONFIG, served by this process
  kubectl-gpudiag simulate --scenario faults.yaml
      nodes and faults from a file; edit it while it runs

exit status: 0 done as shown; 1 it did not work, the last line says why; 2 wrong usage; 130 interrupted
"""
_DEMO = """\
Starts a Kubernetes API server, six GPU nodes and the operator on this machine, and shows: the fleet, an XID 79 turning
up in status, a killed agent whose node becomes Unknown while every other is still reported, and recovery.
Exit status 0 when all of it was so, 1 when not: then the logs are kept, and the last line says where.
"""
_UP = """\
Starts a Kubernetes API server, six GPU nodes and the operator on this machine and leaves them running. Prints the
KUBECONFIG to use and three things to try. What ends on its own is started again. Ctrl-C stops and removes everything.
"""
_SIMULATE = """\
Many agents in one process, each on a loopback address of its own, and the Nodes and agent Pods that belong to them.
For an API server without kubelets and node controller, and an operator on this machine: those of
`kubectl-gpudiag up`. Elsewhere nobody can reach the agents, and the nodes would soon count as lost.
"""
_SCENARIO = """\
a scenario file:
  nodes:
    - {count: 4, machine: h100-8, labels: {pool: training}}        # gpu-01 … gpu-04
    - {count: 2, machine: t4-1, name: infer, labels: {pool: inference}}
  faults:
    - {at: 10s, node: gpu-03, fault: xid-79, gpu: 2}               # from then on
    - {at: 20s, node: pool=inference, fault: latency, latency: 3s, for: 30s}
    - {node: "gpu-*", fault: hot, gpu: 5}                          # from the start
    - {node: "*", share: 2%, fault: hang, every: 1m, for: 20s}     # drawn by the seed, again and again
  incidents:
    - name: cooling of a row fails                                 # its faults count from its own time
      at: 1m
      faults:
        - {node: pool=training, share: 30%, spread: 20s, fault: hot, gpu: any}
        - {at: 30s, node: pool=training, share: 5%, fault: node-gone}
  seed: 7

node is a name, a pattern, or labels; at, for, every, spread, latency and jitter are durations such as 500ms or 2m.
Node groups take latency and jitter, too. The same file and seed give the same course of events. --list names the
machines and the faults; a mistake in the file is said with the field's name, and what ran before goes on.

examples:
  kubectl-gpudiag simulate --nodes 5000 --latency 5ms --jitter 3ms
  kubectl-gpudiag simulate --scenario faults.yaml --serve-only --network 9    # curl 127.9.0.1:9810/v1/report
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    if options.command == "simulate":
        from gpudiag_cli.simulator import command  # noqa: PLC0415

        return command.run(options)
    from gpudiag_cli.demo import command as stage  # noqa: PLC0415

    return stage.demo() if options.command == "demo" else stage.up()


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="kubectl-gpudiag", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=f"kubectl-gpudiag {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo | up | simulate")
    commands.add_parser(
        "demo",
        help="watch it work: a fault, a dead agent, recovery; ends by itself",
        description=_DEMO,
        formatter_class=raw,
    )
    commands.add_parser("up", help="the same fleet, left running", description=_UP, formatter_class=raw)
    simulate = commands.add_parser(
        "simulate",
        help="many agents in one process, with their Nodes and Pods",
        description=_SIMULATE,
        epilog=_SCENARIO,
        formatter_class=raw,
    )
    _simulate_arguments(simulate)
    return parser


def _seconds(text: str) -> float:
    try:
        return durations.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="how many nodes (default: 3)")
    parser.add_argument("--machine", default="h100-8", metavar="NAME", help="what they are (default: h100-8)")
    parser.add_argument(
        "--scenario", type=Path, metavar="FILE", help="nodes and faults over time; read again when it changes"
    )
    parser.add_argument("--list", action="store_true", help="print the machines and the faults there are, and end")
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="PATH", help="the API server (default: $KUBECONFIG, then ~/.kube/config)"
    )
    parser.add_argument("--namespace", default="gpudiag-system", help="of the agent Pods (default: gpudiag-system)")
    parser.add_argument("--port", type=int, default=9810, help="on which every agent listens (default: 9810)")
    parser.add_argument(
        "--network", type=int, metavar="X", help="agents get addresses 127.X.y.z (default: an X that is free)"
    )
    parser.add_argument(
        "--interval", type=float, default=10.0, metavar="SECONDS", help="between two samples (default: 10)"
    )
    parser.add_argument(
        "--latency", type=_seconds, default=0.0, metavar="DURATION", help="every answer takes so long (default: 0s)"
    )
    parser.add_argument(
        "--jitter", type=_seconds, default=0.0, metavar="DURATION", help="by how much that differs (default: 0s)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of all that is drawn (default: the scenario's own, else 0)"
    )
    parser.add_argument("--serve-only", action="store_true", help="only the agents: no Nodes, no Pods, no API server")


if __name__ == "__main__":
    sys.exit(main())
