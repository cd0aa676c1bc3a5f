"""From the control group of a process to its pod, as texts. No I/O.

Paths seen in ``/proc/<pid>/cgroup``, one line per hierarchy (v1) or one line ``0::<path>`` (v2):

| driver, runtime | path |
|---|---|
| cgroupfs, containerd or docker | ``/kubepods/burstable/pod<uid>/<id>`` |
| cgroupfs, CRI-O | ``/kubepods/pod<uid>/crio-<id>`` |
| systemd, containerd | ``/kubepods.slice/kubepods-pod<uid_>.slice/cri-containerd-<id>.scope`` |
| systemd, old containerd | ``/system.slice/containerd.service/kubepods-pod<uid_>.slice:cri-containerd:<id>`` |
| kind | ``/docker/<id>/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod<uid_>.slice/…`` |
| seen from another cgroup namespace | ``/../../pod<uid>/<id>``: the common part is missing |

``<uid_>`` has ``_`` for ``-``, as systemd wants it. A static pod's uid is a hash of 32 digits. The folders above
``pod<uid>`` cannot be relied on, so the uid's form is what is looked for.
"""

import re

from gpudiag_agent.attribution.model import PodRef

_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_POD = re.compile(rf"(?:^|[/-])pod({_UID})(?=$|[/:.])", re.ASCII)
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_POD_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_FOLDER_UID = re.compile(rf"{_UID}", re.ASCII)
_MAX_LINES = 64
"""Hierarchies of cgroup v1; a kernel has about a dozen."""


def pod_uids(text: str) -> tuple[str, ...]:
    """The pods that a ``/proc/<pid>/cgroup`` names, innermost first, with ``-``; more than one where nodes are pods."""
    found: dict[str, None] = {}
    for line in text.splitlines()[:_MAX_LINES]:
        path = line.split(":", 2)[-1]
        for uid in reversed(_POD.findall(path)):
            found.setdefault(uid.replace("_", "-"))
    return tuple(found)


def pod_of_folder(name: str) -> tuple[str, PodRef] | None:
    """Uid and name of the pod whose logs are in a folder of ``/var/log/pods``: ``<namespace>_<name>_<uid>``.

    None: not such a folder.
    """
    parts = name.split("_")
    if len(parts) != 3:
        return None
    namespace, pod, uid = parts
    if _NAMESPACE.fullmatch(namespace) and _POD_NAME.fullmatch(pod) and _FOLDER_UID.fullmatch(uid):
        return uid, PodRef(namespace, pod)
    return None


def process_stat(text: str) -> tuple[str, str, int] | None:
    """Name, state and start time (clock ticks since boot) out of ``/proc/<pid>/stat``; None: cannot be read.

    The name may hold spaces and parentheses; the last parenthesis ends it (proc_pid_stat(5)).
    """
    name, found, rest = text.partition("(")[2].rpartition(")")
    words = rest.split()
    if not found or len(words) < 20 or not words[19].isdecimal() or len(words[19]) > 20:
        return None
    return name[:63], words[0][:1], int(words[19])
