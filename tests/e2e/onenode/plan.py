"""One node on paper: its files, addresses, configuration and command lines. Nothing here starts anything.

Needs no cgroup version, no systemd and no CAP_SYS_RESOURCE: hence the settings about OOM scores and conntrack.
"""

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpudiag_cli.controlplane.binaries import Binaries
from gpudiag_cli.controlplane.settings import Settings, write_private

NODE = "node-1"
ADDRESS = "10.199.0.1"
PODS = "10.198.0.0/16"
API_PORT = 6443


@dataclass(frozen=True)
class Programs:
    """Where every program is."""

    control: Binaries
    node: Path
    """Folder of kubelet, kube-proxy, kube-scheduler, containerd, its shim and ctr."""
    debian: Path
    """Folder into which Debian's packages of runc, iptables and the CNI plugins were unpacked."""

    @property
    def environment(self) -> dict[str, str]:
        """What lets programs from unpacked packages find each other."""
        library = self.debian / "usr" / "lib" / "x86_64-linux-gnu"
        path = f"{self.node}:{self.debian / 'links'}:{self.debian / 'usr' / 'sbin'}:/usr/sbin:/usr/bin:/sbin:/bin"
        libraries = f"{library}:{self.debian / 'lib' / 'x86_64-linux-gnu'}"
        return {"PATH": path, "LD_LIBRARY_PATH": libraries, "XTABLES_LIBDIR": str(library / "xtables")}


@dataclass(frozen=True)
class Plan:
    """A node in a folder."""

    folder: Path
    programs: Programs
    cgroup: str
    kubelet_token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def settings(self) -> Settings:
        """The embedded control plane's settings, on ports that are free in a namespace of its own."""
        return Settings(self.folder, self.programs.control, 2379, 2380, API_PORT, self.kubelet_token[::-1])

    def write(self, settings: Settings) -> Path:
        """Write every configuration file; returns the plan for init.py."""
        settings.write_tokens()
        tokens = self.folder / "tokens.csv"
        line = f'{self.kubelet_token},system:node:{NODE},{NODE},"system:nodes"\n'
        write_private(tokens, tokens.read_text(encoding="utf-8") + line)
        for name in ("log", "lib", "containerd", "net.d", "certificates"):
            (self.folder / name).mkdir(exist_ok=True)
        self._json("net.d/10-bridge.conflist", CNI)
        self._json("kubelet.json", self._kubelet())
        self._json("proxy.json", self._proxy(settings))
        (self.folder / "containerd.toml").write_text(self._containerd(), encoding="utf-8")
        plan = {
            "environment": self.programs.environment,
            "logs": str(self.folder),
            "prepare": self._prepare(),
            "servers": {name: list(map(str, command)) for name, command in self._servers(settings).items()},
        }
        return self._json("plan.json", plan)

    def _json(self, name: str, document: dict[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")
        return path

    def _prepare(self) -> list[list[str]]:
        return [
            ["mount", "--make-rshared", "/"],
            ["mount", "-t", "proc", "proc", "/proc"],
            ["mount", "-t", "tmpfs", "tmpfs", "/run"],
            # kubelet, CNI and agent keep theirs in /var/lib; the machine's own stays as it is, unseen.
            ["mount", "--bind", str(self.folder / "lib"), "/var/lib"],
            ["mount", "--bind", str(self.folder / "log"), "/var/log"],
            ["ip", "link", "set", "lo", "up"],
            # No interface leads out: both ends of the pair stay here.
            ["ip", "link", "add", "node0", "type", "veth", "peer", "name", "node1"],
            ["ip", "address", "add", f"{ADDRESS}/24", "dev", "node0"],
            ["ip", "link", "set", "node0", "up"],
            ["ip", "link", "set", "node1", "up"],
            ["ip", "route", "add", "default", "dev", "node0"],
            ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"],
        ]

    def _servers(self, settings: Settings) -> dict[str, list[str | Path]]:
        key = settings.ca.with_suffix(".key")
        node = self.programs.node
        clients: tuple[str, ...] = (f"--kubeconfig={settings.kubeconfig}", "--leader-elect=false", "--secure-port=0")
        # The API server's certificate is its own authority; it exists as soon as the server has started once.
        waiting: list[str | Path] = [
            "sh",
            "-c",
            f'until [ -s {settings.kubeconfig} ]; do sleep 0.1; done; exec "$@"',
            "sh",
        ]
        control = self.programs.control
        assert control.kube_controller_manager is not None
        return {
            "etcd": settings.etcd_command(),
            "kube-apiserver": self._apiserver(settings),
            "containerd": [node / "containerd", "--config", self.folder / "containerd.toml"],
            "kube-controller-manager": [
                *waiting,
                control.kube_controller_manager,
                *clients,
                f"--root-ca-file={settings.ca}",
                f"--service-account-private-key-file={key}",
            ],
            "kube-scheduler": [*waiting, node / "kube-scheduler", *clients],
            "kube-proxy": [*waiting, node / "kube-proxy", f"--config={self.folder / 'proxy.json'}"],
            "kubelet": [
                *waiting,
                node / "kubelet",
                f"--config={self.folder / 'kubelet.json'}",
                f"--kubeconfig={self.folder / 'kubelet.kubeconfig'}",
                f"--hostname-override={NODE}",
                f"--node-ip={ADDRESS}",
                "--node-labels=nvidia.com/gpu.present=true",
            ],
        }

    def _apiserver(self, settings: Settings) -> list[str | Path]:
        other = {
            "--bind-address": "0.0.0.0",  # Pods and the node, in a network without a way out
            "--advertise-address": ADDRESS,
            "--endpoint-reconciler-type": "lease",
            "--authorization-mode": "Node,RBAC",
            "--kubelet-preferred-address-types": "InternalIP",
            "--anonymous-auth": "false",
        }
        kept = [
            argument
            for argument in settings.apiserver_command()
            if str(argument).split("=")[0] not in {*other, "--disable-admission-plugins"}
        ]
        return [
            *kept,
            *(f"{name}={value}" for name, value in other.items()),
            "--enable-admission-plugins=NodeRestriction",
        ]

    def _kubelet(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            # Who is in this network namespace may call it; the API server shows no certificate here.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "resolvConf": "",
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "clusterDomain": "cluster.local",
        }

    def _proxy(self, settings: Settings) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "hostnameOverride": NODE,
            "clusterCIDR": PODS,
            "oomScoreAdj": 0,
            "clientConnection": {"kubeconfig": str(settings.kubeconfig)},
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
                "udpTimeout": "0s",
                "udpStreamTimeout": "0s",
            },
        }

    def _containerd(self) -> str:
        return f"""version = 3
root = "{self.folder}/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "docker.io/library/gpudiag-e2e-pause:1"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{self.programs.debian}/usr/lib/cni"]
  conf_dir = "{self.folder}/net.d"
"""


CNI: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
