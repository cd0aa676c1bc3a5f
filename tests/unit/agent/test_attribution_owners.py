"""From a process id to its pod: control groups of every runtime, folder names, processes that come and go."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.attribution import cgroup
from gpudiag_agent.attribution.model import Owner, PodRef
from gpudiag_agent.attribution.procfs import Resolver
from gpudiag_agent.clock import ManualClock

UID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
UID_ = UID.replace("-", "_")
OTHER = "ffffffff-4e5f-6071-8293-a4b5c6d7e8f9"
STATIC = "0123456789abcdef0123456789abcdef"
ID = "9" * 64
BOOT = 1_700_000_000.0
TICKS = os.sysconf("SC_CLK_TCK")


class TestControlGroups:
    @pytest.mark.parametrize(
        "text",
        [
            f"0::/kubepods/burstable/pod{UID}/{ID}",
            f"0::/kubepods/pod{UID}/crio-{ID}",
            f"0::/kubepods/pod{UID}",
            f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope",
            f"0::/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope/container",
            f"0::/kubepods.slice/kubepods-pod{UID_}.slice/docker-{ID}.scope",
            f"12:pids:/kubepods/besteffort/pod{UID}/{ID}\n11:cpu,cpuacct:/kubepods/besteffort/pod{UID}/{ID}\n0::/",
            f"5:devices:/system.slice/containerd.service/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{ID}",
            f"0::/docker/{ID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice/x.scope",
            f"0::/docker/{ID}/kubelet/kubepods/pod{UID}/{ID}",
            f"0::/../../pod{UID}/{ID}",
            f"0::/../cri-containerd-x/kubepods-burstable-pod{UID_}.slice/y.scope (deleted)",
            f"0::/kubepods/pod{UID}/{ID} (deleted)",
        ],
    )
    def test_lead_to_the_pod(self, text: str) -> None:
        assert cgroup.pod_uids(text) == (UID,)

    def test_of_a_static_pod_lead_to_its_hash(self) -> None:
        assert cgroup.pod_uids(f"0::/kubepods/burstable/pod{STATIC}/{ID}") == (STATIC,)
        assert cgroup.pod_uids(f"0::/kubepods.slice/kubepods-burstable-pod{STATIC}.slice/x.scope") == (STATIC,)

    def test_of_a_node_inside_a_pod_name_both_the_inner_first(self) -> None:
        assert cgroup.pod_uids(f"0::/kubepods/pod{OTHER}/{ID}/kubelet/kubepods/pod{UID}/{ID}") == (UID, OTHER)

    @pytest.mark.parametrize(
        "text",
        [
            "0::/user.slice/user-1000.slice/session-1.scope",
            "0::/",
            "",
            f"0::/docker/{ID}",
            f"0::/machine.slice/libpod-{ID}.scope",
            "0::/kubepods/podinfo/x",
            f"0::/kubepods/pod{UID}0/x",
            f"0::/kubepods/xpod{UID}/x",
        ],
    )
    def test_of_the_node_itself_lead_nowhere(self, text: str) -> None:
        assert cgroup.pod_uids(text) == ()

    @given(st.text(max_size=300))
    def test_no_text_breaks_it(self, text: str) -> None:
        cgroup.pod_uids(text)
        cgroup.pod_uids(f"0::/kubepods/pod{UID}/{text}")
        cgroup.process_stat(text)
        cgroup.process_stat(f"1 ({text}) S 0 {text}")


class TestPodFolders:
    def test_name_the_pod(self) -> None:
        assert cgroup.pod_of_folder(f"ml-team_train-0.a_{UID}") == (UID, PodRef("ml-team", "train-0.a"))
        assert cgroup.pod_of_folder(f"kube-system_etcd-node_{STATIC}") == (STATIC, PodRef("kube-system", "etcd-node"))

    @pytest.mark.parametrize(
        "name", [UID, "a_b", f"a_b_c_{UID}", f"A_b_{UID}", f"a_b_{UID}x", f"-a_b_{UID}", f"{'n' * 64}_p_{UID}", "a_b_"]
    )
    def test_or_do_not(self, name: str) -> None:
        assert cgroup.pod_of_folder(name) is None

    @given(st.text(max_size=80))
    def test_no_name_breaks_it(self, name: str) -> None:
        found = cgroup.pod_of_folder(name)
        assert found is None or f"{found[1].namespace}_{found[1].name}_{found[0]}" == name


def test_a_process_may_be_called_anything() -> None:
    rest = " ".join(["1"] * 18)
    assert cgroup.process_stat(f"7 (a) (b) Z {rest} 4711 0 0\n") == ("a) (b", "Z", 4711)
    assert cgroup.process_stat("7 (a) Z 1") is None
    assert cgroup.process_stat("") is None


class Node:
    """A procfs and a folder of pod logs."""

    def __init__(self, root: Path) -> None:
        self.proc, self.logs = root / "proc", root / "pods"
        self.proc.mkdir()
        self.logs.mkdir()
        self.clock = ManualClock(start=BOOT + 1000)
        self.resolver = Resolver(clock=self.clock, booted_at=BOOT, proc=self.proc, pod_logs=self.logs)

    def run(self, pid: int, *, name: str = "python3", state: str = "S", group: str = "/", born: float = 500.0) -> None:
        folder = self.proc / str(pid)
        folder.mkdir(exist_ok=True)
        ticks = round(born * TICKS)
        (folder / "stat").write_text(f"{pid} ({name}) {state} {'0 ' * 18}{ticks} 0 0\n")
        (folder / "cgroup").write_text(f"0::{group}\n")

    def end(self, pid: int) -> None:
        for file in (self.proc / str(pid)).iterdir():
            file.unlink()
        (self.proc / str(pid)).rmdir()

    def pod(self, name: str = "train", *, uid: str = UID) -> None:
        (self.logs / f"ml_{name}_{uid}").mkdir()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


class TestAProcess:
    def test_in_a_pod_is_named_with_it(self, node: Node) -> None:
        node.pod()
        node.run(4242, state="R", group=f"/kubepods/pod{UID}/{ID}")
        assert node.resolver.resolve(4242) == Owner(
            pid=4242, name="python3", state="R", state_since=BOOT + 1000, pod_uid=UID, pod=PodRef("ml", "train")
        )

    def test_of_the_node_itself_has_none(self, node: Node) -> None:
        node.run(7, name="nv-hostengine", group="/system.slice/dcgm.service")
        owner = node.resolver.resolve(7)
        assert owner is not None
        assert (owner.name, owner.pod_uid, owner.pod) == ("nv-hostengine", None, None)

    def test_of_an_unknown_pod_keeps_the_uid_until_the_name_appears(self, node: Node) -> None:
        node.run(4242, group=f"/kubepods/pod{UID}/{ID}")
        owner = node.resolver.resolve(4242)
        assert owner is not None
        assert (owner.pod_uid, owner.pod) == (UID, None)
        node.pod()
        node.clock.advance(2)
        owner = node.resolver.resolve(4242)
        assert owner is not None
        assert owner.pod == PodRef("ml", "train")

    def test_of_a_node_inside_a_pod_is_the_pods_that_this_node_knows(self, node: Node) -> None:
        node.pod(uid=OTHER)
        node.run(1, group=f"/kubepods/pod{OTHER}/{ID}/kubelet/kubepods/pod{UID}/{ID}")
        owner = node.resolver.resolve(1)
        assert owner is not None
        assert owner.pod_uid == OTHER

    def test_that_is_gone_is_remembered_for_a_minute(self, node: Node) -> None:
        node.pod()
        node.run(4242, group=f"/kubepods/pod{UID}/{ID}")
        known = node.resolver.resolve(4242)
        node.end(4242)
        node.clock.advance(59)
        assert node.resolver.resolve(4242) == known
        node.clock.advance(2)
        assert node.resolver.resolve(4242) is None

    def test_that_was_never_there_is_nobody(self, node: Node) -> None:
        assert node.resolver.resolve(4242) is None
        assert node.resolver.resolve(0) is None
        assert node.resolver.resolve(-1) is None

    def test_with_the_number_of_another_is_another(self, node: Node) -> None:
        node.pod()
        node.run(4242, group=f"/kubepods/pod{UID}/{ID}", born=500)
        node.resolver.resolve(4242)
        node.run(4242, name="bash", group="/user.slice", born=990)
        node.clock.advance(2)
        owner = node.resolver.resolve(4242)
        assert owner is not None
        assert (owner.name, owner.pod) == ("bash", None)

    def test_younger_than_the_event_that_names_it_is_not_meant(self, node: Node) -> None:
        node.run(4242, born=900)
        assert node.resolver.resolve(4242, at=BOOT + 800) is None
        assert node.resolver.resolve(4242, at=BOOT + 950) is not None
        assert node.resolver.resolve(4242, at=BOOT + 800) is None

    def test_that_became_a_zombie_keeps_its_pod_and_says_since_when(self, node: Node) -> None:
        node.pod()
        node.run(4242, group=f"/kubepods/pod{UID}/{ID}")
        node.resolver.resolve(4242)
        node.clock.advance(10)
        node.run(4242, state="Z", group="/")
        node.resolver.resolve(4242)
        node.clock.advance(10)
        owner = node.resolver.resolve(4242)
        assert owner is not None
        assert (owner.state, owner.state_since, owner.pod) == ("Z", BOOT + 1010, PodRef("ml", "train"))

    def test_that_became_a_zombie_is_still_of_its_pod_where_that_has_no_name(self, node: Node) -> None:
        node.run(4242, group=f"/kubepods/pod{UID}/{ID}")
        node.resolver.resolve(4242)
        node.clock.advance(10)
        node.run(4242, state="Z", group="/")
        owner = node.resolver.resolve(4242)
        assert owner is not None
        assert owner.pod_uid == UID

    def test_named_by_a_storm_of_lines_is_looked_up_once(self, node: Node) -> None:
        node.run(4242)
        first = node.resolver.resolve(4242)
        node.run(4242, state="Z")
        assert node.resolver.resolve(4242) is first
        node.clock.advance(1)
        assert node.resolver.resolve(4242) is not first

    def test_is_one_of_a_bounded_number(self, node: Node) -> None:
        node.run(1)
        for pid in range(1, 1100):
            if pid > 1:
                (node.proc / str(pid)).symlink_to(node.proc / "1")
            node.resolver.resolve(pid)
        assert len(node.resolver._known) == 1024

    def test_with_garbage_for_files_is_nobody(self, node: Node) -> None:
        node.run(5)
        (node.proc / "5" / "stat").write_bytes(b"\xff\x00(")
        assert node.resolver.resolve(5) is None


class TestWhetherTheNodeCanBeSeen:
    def test_the_nodes_own_processes_begin_with_kernel_threads(self, node: Node) -> None:
        assert "hostPID: true" in str(node.resolver.problem())
        node.run(2, name="sh")
        assert "hostPID: true" in str(node.resolver.problem())
        node.run(2, name="kthreadd")
        assert node.resolver.problem() is None

    def test_or_this_is_the_first_process_namespace(self, node: Node) -> None:
        (node.proc / "self" / "ns").mkdir(parents=True)
        (node.proc / "self" / "ns" / "pid").symlink_to("pid:[4026531836]")
        assert node.resolver.problem() is None
