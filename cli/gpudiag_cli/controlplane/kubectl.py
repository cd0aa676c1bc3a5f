"""Running the real kubectl against one control plane, and only that one."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpudiag_cli.controlplane.errors import ControlPlaneError, with_lines


@dataclass(frozen=True)
class Kubectl:
    """A callable kubectl: `kubectl("get", "nodes")`; `cache` is a folder for what it remembers of the server."""

    path: Path
    kubeconfig: Path
    cache: Path

    def __call__(
        self, *arguments: str | Path, stdin: str | None = None, check: bool = True, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run it and give what it said.

        Raises:
            ControlPlaneError: it failed and `check` is true, or it took longer than `timeout` seconds.
        """
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            # The user's cache is kept by address, and another control plane may have had ours with other kinds.
            "KUBECACHEDIR": str(self.cache),
            "KUBECTL_KUBERC": "false",
        }
        command = f"kubectl {' '.join(map(str, arguments))}"
        try:
            result = subprocess.run(
                [self.path, *arguments],
                input=stdin or "",
                capture_output=True,
                text=True,
                check=False,
                env=environment,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise ControlPlaneError(f"`{command}` did not end within {timeout:.0f} s.") from None
        if check and result.returncode:
            message = f"`{command}` failed with status {result.returncode}. It said:"
            raise ControlPlaneError(with_lines(message, result.stderr.splitlines()[-20:]))
        return result

    def json(self, *arguments: str | Path) -> Any:
        """What a command says with `--output=json`."""
        return json.loads(self(*arguments, "--output=json").stdout)

    def apply(self, *objects: dict[str, Any], namespace: str | None = None) -> None:
        """Server-side apply of objects, with strict validation as `kubectl apply` has it."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        where = [f"--namespace={namespace}"] if namespace else []
        self("apply", "--server-side", "--filename=-", *where, stdin=json.dumps(items))
