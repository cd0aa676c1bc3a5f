"""One control plane on paper: its files, ports and command lines. Nothing here starts anything."""

import json
import secrets
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path

from gpudiag_cli.controlplane.binaries import Binaries
from gpudiag_cli.controlplane.errors import ControlPlaneError
from gpudiag_cli.controlplane.ports import LOOPBACK, free_ports

ADMIN = "admin"
# No kubelet reports for the nodes, so a full controller manager would declare every one of them dead within 50 s.
# These two do what everybody expects of the API itself: dependents go with their owners, namespaces really vanish.
CONTROLLERS = "garbage-collector-controller,namespace-controller"


@dataclass(frozen=True)
class Settings:
    """What stays the same from start to stop, also over a restart of the API server."""

    directory: Path
    binaries: Binaries
    etcd_port: int
    etcd_peer_port: int
    api_port: int
    admin_token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @classmethod
    def draw(cls, directory: Path, binaries: Binaries) -> "Settings":
        """Settings with ports that are free now, and a new administrator's token."""
        etcd, peer, api = free_ports(3)
        return cls(directory, binaries, etcd, peer, api)

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://{LOOPBACK}:{self.api_port}"

    @property
    def ca(self) -> Path:
        """The certificates that the API server makes for itself at its first start; clients verify them."""
        return self.directory / "certificates" / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "admin.kubeconfig"

    def write_tokens(self) -> None:
        """The static token file of the API server: one administrator, in the group that RBAC never refuses."""
        write_private(self._tokens, f"{self.admin_token},{ADMIN},{ADMIN},system:masters\n")

    def etcd_command(self) -> list[str | Path]:
        """How etcd is started."""
        client, peer = (f"http://{LOOPBACK}:{port}" for port in (self.etcd_port, self.etcd_peer_port))
        return [
            self.binaries.etcd,
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            # The data need not survive a power cut, and this is most of the time a write takes.
            "--unsafe-no-fsync",
            "--log-level=warn",
            "--log-format=console",
        ]

    def apiserver_command(self) -> list[str | Path]:
        """How kube-apiserver is started."""
        return [
            self.binaries.kube_apiserver,
            f"--etcd-servers=http://{LOOPBACK}:{self.etcd_port}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={self.api_port}",
            f"--advertise-address={LOOPBACK}",
            # Endpoints of the service `kubernetes` must not be loopback addresses, and nobody needs them here.
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--cert-dir={self.ca.parent}",
            "--anonymous-auth=false",
            f"--token-auth-file={self._tokens}",
            "--authorization-mode=RBAC",
            # Service account tokens are signed with the key that the API server generates for its own certificate:
            # one fresh key per control plane, without a tool that could make another.
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
            # Nobody makes the service account `default` of a namespace here; with it on, no Pod could be made.
            "--disable-admission-plugins=ServiceAccount",
            # As on nearly every real cluster: agents may be privileged, and Pod Security Admission decides.
            "--allow-privileged=true",
            # Tests and simulated fleets come in bursts; queueing them would only measure the queue.
            "--enable-priority-and-fairness=false",
            "--max-requests-inflight=3000",
            "--max-mutating-requests-inflight=1500",
            "--profiling=false",
        ]

    def controller_manager_command(self) -> list[str | Path]:
        """How kube-controller-manager is started."""
        if not self.binaries.kube_controller_manager:
            raise ControlPlaneError(
                "These programs have no kube-controller-manager. Start with controller_manager=False, or get the "
                "programs from find_binaries()."
            )
        return [
            self.binaries.kube_controller_manager,
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={CONTROLLERS}",
            "--leader-elect=false",
            "--secure-port=0",
            # The defaults (20 and 30) would take minutes to collect what a fleet of 5,000 nodes leaves.
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
            "--profiling=false",
        ]

    def write_kubeconfig(self, path: Path, *, namespace: str, user: str, token: str) -> Path:
        """A kubeconfig (JSON is YAML) that verifies the server; readable for its owner only."""
        name = "gpudiag"
        cluster = {"server": self.server, "certificate-authority-data": b64encode(self.ca.read_bytes()).decode()}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user, "namespace": namespace}}],
            "current-context": name,
        }
        write_private(path, json.dumps(config, indent=2) + "\n")
        return path

    @property
    def _tokens(self) -> Path:
        return self.directory / "tokens.csv"

    @property
    def _key(self) -> Path:
        return self.ca.with_suffix(".key")


def write_private(path: Path, text: str) -> None:
    """Write a secret: at no moment can others read it."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
