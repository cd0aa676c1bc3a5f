"""A real one-node cluster without Docker: starts, waits until Ready, and ends with the process that started it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gpudiag_cli.controlplane.errors import ControlPlaneError, last_lines, with_lines
from gpudiag_cli.controlplane.process import Child

from .janitor import roots
from .plan import ADDRESS, API_PORT, NODE, Plan, Programs

READY_SECONDS = 120.0


class Node:
    """A running cluster of one node; use it as a context manager.

    Args:
        folder: for its files.
        programs: of the node.
        temporary: other folders that shall go with it.
    """

    def __init__(self, folder: Path, programs: Programs, *, temporary: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._temporary = temporary
        self._programs = programs
        self._plan = Plan(folder, programs, f"gpudiag-e2e-{os.getpid()}")
        self._settings = self._plan.settings
        self._child: Child | None = None
        self._janitor: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's; works inside the node's network only."""
        return self._settings.kubeconfig

    @property
    def init(self) -> int:
        """Process id of the first process of the namespaces, as this machine counts."""
        assert self._child is not None
        pid = self._child.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])

    def start(self, command: Sequence[str | Path], log: Path) -> Child:
        """Start a program on the node, in its network and mounts; it ends with this process."""
        nsenter = shutil.which("nsenter") or "nsenter"
        return Child.start([nsenter, f"--target={self.init}", "--net", "--mount", "--", *command], log)

    def run(
        self, command: Sequence[str | Path], *, stdin: str = "", check: bool = True, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the node's network and mounts, as on the node itself."""
        inside = ["nsenter", f"--target={self.init}", "--net", "--mount", "--pid", *map(str, command)]
        environment = {**os.environ, **self._programs.environment, "KUBECONFIG": str(self.kubeconfig)}
        environment |= {"KUBECACHEDIR": str(self.folder / "kubectl-cache"), "KUBECTL_KUBERC": "false"}
        done = subprocess.run(
            inside, input=stdin, capture_output=True, text=True, check=False, env=environment, timeout=timeout
        )
        if check and done.returncode:
            raise ControlPlaneError(with_lines(f"{command} failed:", (done.stdout + done.stderr).splitlines()[-30:]))
        return done

    def kubectl(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator."""
        return self.run([self._programs.control.kubectl, *arguments], **options)

    def load(self, archive: Path) -> None:
        """Bring an image to the node."""
        self.run(["ctr", "-n", "k8s.io", "images", "import", "--local", archive], timeout=300)

    def stop(self) -> None:
        """End everything that runs on the node, and take its control groups and data away; may be called again."""
        if self._child is not None:
            with contextlib.suppress(OSError, IndexError):
                os.kill(self.init, signal.SIGKILL)
            self._child.stop(10.0)
            self._child = None
        if self._janitor is not None:
            self._janitor.communicate(timeout=60)
            self._janitor = None

    def _start(self) -> None:
        plan = self._plan.write(self._settings)
        # In a session of its own: it outlives this process, whatever ends that.
        janitor = Path(__file__).with_name("janitor.py")
        data = [self.folder / name for name in ("containerd", "lib", "etcd")]
        command: list[str | Path] = [sys.executable, janitor, self._plan.cgroup, *data, *self._temporary]
        self._janitor = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        for root in roots():
            (root / self._plan.cgroup).mkdir()
            _inherit_cpuset(root, self._plan.cgroup)
        namespaces = [shutil.which("unshare") or "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
        init = Path(__file__).with_name("init.py")
        self._child = Child.start([*namespaces, sys.executable, init, plan], self.folder / "init.log", cwd=self.folder)
        self._until("the API server's certificate", self._settings.ca.exists)
        for path, token in (
            (self.folder / "kubelet.kubeconfig", self._plan.kubelet_token),
            (self.kubeconfig, self._settings.admin_token),
        ):
            self._settings.write_kubeconfig(path.with_suffix(".new"), namespace="default", user=NODE, token=token)
            text = path.with_suffix(".new").read_text(encoding="utf-8").replace("127.0.0.1", ADDRESS)
            path.with_suffix(".new").write_text(text, encoding="utf-8")
            path.with_suffix(".new").rename(path)
        self._until("a Ready node", self._ready)

    def _ready(self) -> bool:
        done = self.kubectl("get", "node", NODE, "--output=json", check=False)
        if done.returncode:
            return False
        conditions = json.loads(done.stdout)["status"].get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _until(self, what: str, done: Any) -> None:
        assert self._child is not None
        deadline = time.monotonic() + READY_SECONDS
        while not done():
            if not self._child.alive or time.monotonic() > deadline:
                lines = last_lines(self.folder / "init.log")
                raise ControlPlaneError(with_lines(f"No {what} within {READY_SECONDS:.0f} s; {self.folder}:", lines))
            time.sleep(0.2)


def _inherit_cpuset(root: Path, name: str) -> None:
    # Version 1: a new cpuset is empty, and no process can enter an empty one.
    for file in ("cpuset.mems", "cpuset.cpus"):
        if (root / file).exists() and (root / name / file).exists():
            (root / name / file).write_text((root / file).read_text(encoding="ascii"), encoding="ascii")


__all__ = ["ADDRESS", "API_PORT", "NODE", "Node", "Programs"]
