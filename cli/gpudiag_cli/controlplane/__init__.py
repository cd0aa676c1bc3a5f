"""The embedded control plane: a real Kubernetes API server for `make demo` and `make test`, without a cluster.

    with ControlPlane.start() as plane:
        plane.client()("get", "namespaces")

There are no kubelets and no scheduler: Nodes and Pods are objects. What a kubelet would do is up to whoever made
them: setting a Pod's status, and deleting a Pod that has a nodeName with a grace period of 0.
"""

from gpudiag_cli.controlplane.binaries import Binaries, find_binaries
from gpudiag_cli.controlplane.errors import ControlPlaneError
from gpudiag_cli.controlplane.kubectl import Kubectl
from gpudiag_cli.controlplane.plane import ControlPlane
from gpudiag_cli.controlplane.progress import Progress

__all__ = ["Binaries", "ControlPlane", "ControlPlaneError", "Kubectl", "Progress", "find_binaries"]
