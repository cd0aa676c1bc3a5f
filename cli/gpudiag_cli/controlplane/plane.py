"""A real Kubernetes API in a folder: etcd, kube-apiserver and two controllers, for demo and tests.

Made for the ways tests end: stop() works at any point of a start, twice and on paused processes; the interpreter's
exit calls it; and where not even that runs, the kernel ends the children (process.py).
"""

import atexit
import contextlib
import http.client
import os
import signal
import ssl
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from gpudiag_cli.controlplane.binaries import Binaries, find_binaries
from gpudiag_cli.controlplane.errors import ControlPlaneError, last_lines, with_lines
from gpudiag_cli.controlplane.kubectl import Kubectl
from gpudiag_cli.controlplane.ports import LOOPBACK
from gpudiag_cli.controlplane.process import Child
from gpudiag_cli.controlplane.progress import Progress
from gpudiag_cli.controlplane.recipe import APISERVER, CONTROLLER_MANAGER, ETCD
from gpudiag_cli.controlplane.settings import ADMIN, Settings
from gpudiag_cli.controlplane.workspace import Workspace

NAMESPACE = "gpudiag-system"
READY_SECONDS = 60.0
# The controller manager depends on the API server and that on etcd: each is asked to go while what it needs is up.
# An API server would wait a minute for its clients to end their watches; its data is in etcd, so it need not.
_GRACE_SECONDS = {CONTROLLER_MANAGER: 3.0, APISERVER: 3.0, ETCD: 5.0}
_ATTEMPTS = 5


class _PortTakenError(ControlPlaneError):
    """A port was free when it was drawn and taken when a server came to bind it."""


class ControlPlane:
    """A running control plane; make one with ControlPlane.start(), best as a context manager."""

    def __init__(self, settings: Settings, workspace: Workspace) -> None:
        self._settings = settings
        self._workspace = workspace
        self._children: dict[str, Child] = {}

    @classmethod
    def start(
        cls,
        directory: Path | None = None,
        *,
        controller_manager: bool = True,
        binaries: Binaries | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Find or build the programs, start them, and come back when the API server is ready.

        Args:
            directory: where data, logs and kubeconfigs go, kept afterwards; a temporary folder if None.
            controller_manager: whether owner references and namespaces are to be acted upon.
            binaries: the programs, where they were looked up before.
            progress: who hears about a build.

        Raises:
            ControlPlaneError: with what failed, what to do, and the end of the log of what failed.
        """
        binaries = binaries or find_binaries(controller_manager=controller_manager, progress=progress)
        workspace = Workspace(directory)
        for attempt in range(1, _ATTEMPTS + 1):
            plane = cls(Settings.draw(workspace.path, binaries), workspace)
            try:
                plane._start(controller_manager=controller_manager)
            except _PortTakenError:
                plane._stop_children()
                if attempt == _ATTEMPTS:
                    workspace.close()
                    raise
            except BaseException:
                plane.stop()
                raise
            else:
                break
        atexit.register(plane.stop)
        return plane

    def _start(self, *, controller_manager: bool) -> None:
        self._settings.write_tokens()
        for log in (ETCD, APISERVER, CONTROLLER_MANAGER):
            self.log(log).unlink(missing_ok=True)
        # The API server waits for etcd by itself, and gets its own certificate ready meanwhile.
        self._run(ETCD, self._settings.etcd_command())
        self.start_apiserver()
        self.write_kubeconfig(self.kubeconfig, namespace="default")
        if controller_manager:
            self._run(CONTROLLER_MANAGER, self._settings.controller_manager_command())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End everything and remove the folder if it is a temporary one; may be called again."""
        atexit.unregister(self.stop)
        try:
            self._stop_children()
        finally:
            self._workspace.close()

    @property
    def directory(self) -> Path:
        """The folder with data, logs and kubeconfigs."""
        return self._settings.directory

    @property
    def server(self) -> str:
        """URL of the API server; the same until stop()."""
        return self._settings.server

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, with the namespace `default`."""
        return self._settings.kubeconfig

    @property
    def apiserver_ca(self) -> Path:
        """The certificates against which the API server is verified (PEM)."""
        return self._settings.ca

    @property
    def kubectl(self) -> Path:
        """A kubectl of the API server's version."""
        return self._settings.binaries.kubectl

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by program name, of what runs now."""
        return {name: child.pid for name, child in self._children.items() if child.alive}

    def log(self, program: str) -> Path:
        """The log file of a program, for example "kube-apiserver"."""
        return self.directory / f"{program}.log"

    def check(self) -> None:
        """Raise ControlPlaneError if a program has ended on its own, with the end of its log."""
        for name, child in self._children.items():
            if not child.alive:
                raise self._failure(f"{name} ended with status {child.process.returncode}")

    # Faults ------------------------------------------------------------------------------------------------------

    def stop_apiserver(self) -> None:
        """An outage that clients notice at once: connections are refused until start_apiserver()."""
        self._end(APISERVER)

    def start_apiserver(self) -> None:
        """Start the API server on its port, with its data and keys, and wait until it is ready."""
        self._run(APISERVER, self._settings.apiserver_command())
        self._wait_until_ready()

    def pause_apiserver(self) -> None:
        """An outage that clients have to time out of: connections stay, and nothing answers."""
        os.kill(self._children[APISERVER].pid, signal.SIGSTOP)

    def resume_apiserver(self) -> None:
        """The end of pause_apiserver()."""
        os.kill(self._children[APISERVER].pid, signal.SIGCONT)

    def restart_controller_manager(self) -> None:
        """Make the garbage collector know new kinds now; by itself it looks for them every 30 seconds."""
        self._end(CONTROLLER_MANAGER)
        self._run(CONTROLLER_MANAGER, self._settings.controller_manager_command())

    # Clients -----------------------------------------------------------------------------------------------------

    def write_kubeconfig(
        self, path: Path, *, namespace: str = NAMESPACE, user: str = ADMIN, token: str | None = None
    ) -> Path:
        """Write a kubeconfig: the administrator's, or the one of whoever has the token."""
        return self._settings.write_kubeconfig(
            path, namespace=namespace, user=user, token=token or self._settings.admin_token
        )

    def service_account_token(
        self, name: str, *, namespace: str = NAMESPACE, audience: str | None = None, duration: str = "24h"
    ) -> str:
        """A token of an existing service account from the TokenRequest API, as a kubelet would mount it."""
        arguments = ["create", "token", name, f"--namespace={namespace}", f"--duration={duration}"]
        if audience:
            arguments.append(f"--audience={audience}")
        return self.client()(*arguments).stdout.strip()

    def service_account_kubeconfig(
        self, path: Path, name: str, *, namespace: str = NAMESPACE, duration: str = "24h"
    ) -> Path:
        """A kubeconfig of a service account: what runs with it has that account's RBAC rights and no more."""
        token = self.service_account_token(name, namespace=namespace, duration=duration)
        return self.write_kubeconfig(path, namespace=namespace, user=name, token=token)

    def client(self, kubeconfig: Path | None = None) -> Kubectl:
        """A callable kubectl: the administrator's, or the one of another kubeconfig."""
        return Kubectl(self.kubectl, kubeconfig or self.kubeconfig, self.directory / "kubectl-cache")

    # Inside ------------------------------------------------------------------------------------------------------

    def _run(self, name: str, command: list[str | Path]) -> None:
        self._children[name] = Child.start(command, self.log(name), cwd=self.directory)

    def _end(self, name: str) -> None:
        if child := self._children.pop(name, None):
            child.stop(_GRACE_SECONDS[name])

    def _stop_children(self) -> None:
        with contextlib.ExitStack() as last_first:
            # Each is ended even if ending another fails or is interrupted.
            for name in (ETCD, APISERVER, CONTROLLER_MANAGER):
                last_first.callback(self._end, name)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise self._failure(f"{APISERVER} was not ready within {READY_SECONDS:.0f} s")
            time.sleep(0.05)
        # Ready, but was it ours? If our own etcd or API server lost its port, it has ended.
        self.check()

    def _is_ready(self) -> bool:
        try:
            context = ssl.create_default_context(cafile=self.apiserver_ca)
            with contextlib.closing(
                http.client.HTTPSConnection(LOOPBACK, self._settings.api_port, timeout=5, context=context)
            ) as connection:
                connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {self._settings.admin_token}"})
                return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):  # no certificate yet, not listening yet, not ready yet
            return False

    def _failure(self, what: str) -> ControlPlaneError:
        program = what.split(maxsplit=1)[0]
        lines = last_lines(self.log(program))
        kind = _PortTakenError if any("address already in use" in line for line in lines) else ControlPlaneError
        return kind(with_lines(f"The control plane does not run: {what}. The end of {self.log(program)}:", lines))
