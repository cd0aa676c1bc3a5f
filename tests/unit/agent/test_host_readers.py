"""What the host shows besides NVML: read from folders laid out as the kernel does, and from folders it never made."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.agent.host_tree import HostTree

from gpudiag_agent.clock import ManualClock
from gpudiag_agent.host import files, infiniband, kernel, pci_bus
from gpudiag_agent.host.daemons import Daemons
from gpudiag_agent.host.facts import FABRIC_MANAGER, IMEX, Daemon, HostFacts, KernelDriver, PCIDevice, Port
from gpudiag_agent.host.reader import HostReader

POD = "0::/kubepods.slice/kubepods-pod0a1b2c3d_0000_4000_8000_0123456789ab.slice/cri-containerd-1.scope\n"


@pytest.fixture
def tree(tmp_path: Path) -> HostTree:
    return HostTree(tmp_path)


class TestFiles:
    def test_no_more_than_asked_for(self, tmp_path: Path) -> None:
        huge = tmp_path / "huge"
        huge.write_bytes(b"\xff" * 1_000_000)
        found = files.read(huge, 1000)
        assert found is not None
        assert len(found) == 1000
        assert files.number(huge) is None

    def test_what_cannot_be_read_is_none(self, tmp_path: Path) -> None:
        loop = tmp_path / "loop"
        loop.symlink_to(loop)
        os.mkfifo(tmp_path / "fifo")
        for name in ("absent", "loop", "loop/below", "nul\0"):
            assert files.read(tmp_path / name) is None
        assert files.read(tmp_path) is None
        assert files.read(tmp_path / "fifo") == "", "a FIFO without a writer is not waited for"
        assert files.names(loop, 5) is None

    @pytest.mark.parametrize(("text", "number"), [("7\n", 7), ("-1\n", -1), ("", None), ("0x7", None), ("٣", None)])
    def test_numbers(self, tmp_path: Path, text: str, number: int | None) -> None:
        (tmp_path / "n").write_text(text)
        assert files.number(tmp_path / "n") == number

    @given(content=st.binary(max_size=300))
    def test_any_content_is_text_or_nothing(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        path = tmp_path_factory.mktemp("any") / "file"
        path.write_bytes(content)
        assert isinstance(files.read(path), str)
        assert isinstance(files.number(path), int | None)


class TestPCIBus:
    def test_only_nvidia_display_and_3d_controllers_count(self, tree: HostTree) -> None:
        tree.device("0000:3b:00.0", numa=1)
        tree.device("0000:86:00.0", kind="0x030000", driver=None, numa=-1)
        tree.device("0008:01:00.0", driver="vfio-pci")
        tree.device("0000:c0:00.0", kind="0x068000", driver="nvidia-nvswitch")
        tree.device("0000:c1:00.0", kind="0x068000", driver=None)
        tree.device("0000:3b:00.1", kind="0x040300", driver="snd")
        tree.device("0000:00:02.0", vendor="0x8086", kind="0x030000", driver="i915")
        assert pci_bus.scan(tree.sysfs_pci) == (
            (
                PCIDevice("0000:3b:00.0", "nvidia", 1),
                PCIDevice("0000:86:00.0", None),
                PCIDevice("0008:01:00.0", "vfio-pci", 0),
            ),
            2,
        )

    def test_nothing_seen_is_unknown(self, tree: HostTree) -> None:
        assert pci_bus.scan(tree.sysfs_pci) == (None, 0)
        assert pci_bus.scan(tree.proc / "absent") == (None, None)

    def test_errors_that_the_kernel_counted(self, tree: HostTree) -> None:
        device = tree.device("0000:3b:00.0")
        counts = {"correctable_RxErr": 3, "correctable_BadTLP": 4, "correctable_NonFatalErr": 100}
        tree.aer(device, **counts, nonfatal_UnsupReq=5, nonfatal_CmpltTO=1, fatal_DLP=2)
        found, _ = pci_bus.scan(tree.sysfs_pci)
        assert found is not None
        assert found[0].errors == {"correctable": 7, "non_fatal": 6, "unsupported_request": 5}

    def test_hostile_folders(self, tree: HostTree) -> None:
        for name, text in (("no address", "0x10de"), ("0000:01:00.0", "\xff" * 5000)):
            tree.write(tree.sysfs_pci / name / "vendor", text)
        (tree.sysfs_pci / "0000:02:00.0").symlink_to(tree.sysfs_pci / "0000:02:00.0")
        odd = tree.device("0000:03:00.0")
        tree.write(odd / "aer_dev_nonfatal", "UnsupReq\nX Y\nUnsupReq 99999999999999999999999\n \n")
        assert pci_bus.scan(tree.sysfs_pci) == ((PCIDevice("0000:03:00.0", "nvidia", 0),), 0)


class TestInfiniBand:
    def test_a_port(self, tree: HostTree) -> None:
        tree.adapter("mlx5_2", "0000:5e:00.0", counters__symbol_error="7", hw_counters__roce_slow_restart="1")
        assert infiniband.ports(tree.infiniband) == (
            Port(
                device="mlx5_2",
                port=1,
                pci="0000:5e:00.0",
                board="MT_0000000838",
                link_layer="InfiniBand",
                state="ACTIVE",
                physical_state="LinkUp",
                rate_gbps=400.0,
                counters={"symbol_error": 7, "roce_slow_restart": 1},
            ),
        )

    def test_a_port_that_is_down_is_not_asked_for_counters(self, tree: HostTree) -> None:
        tree.adapter("mlx5_0", "0000:5e:00.0", counters__symbol_error="7", state="1: DOWN", phys_state="3: Disabled")
        (port,) = infiniband.ports(tree.infiniband) or ()
        assert (port.active, port.physical_state, port.counters) == (False, "Disabled", {})
        assert (port.name, port.key) == ("mlx5_0/1", "0000:5e:00.0/1")

    def test_virtual_functions_and_software_are_left_out(self, tree: HostTree) -> None:
        virtual = tree.adapter("mlx5_9", "0000:5e:00.7")
        (virtual / "physfn").symlink_to("../0000:5e:00.0")
        tree.write(tree.infiniband / "rxe0/ports/1/state", "4: ACTIVE\n")
        sub_function = tree.proc.parent / "sys/bus/auxiliary/mlx5_core.sf.4"
        sub_function.mkdir(parents=True)
        tree.write(tree.infiniband / "mlx5_8/ports/1/state", "4: ACTIVE\n")
        (tree.infiniband / "mlx5_8/device").symlink_to(sub_function)
        assert infiniband.ports(tree.infiniband) == ()

    def test_no_adapter(self, tree: HostTree) -> None:
        assert infiniband.ports(tree.infiniband) == ()

    @pytest.mark.parametrize("text", ["", "\0\xff", "4 ACTIVE", "9" * 5000, "4: " + "A" * 500, "4: ACTIVE; rm"])
    def test_words_that_no_kernel_writes_say_nothing(self, tree: HostTree, text: str) -> None:
        tree.adapter("mlx5_0", "0000:5e:00.0", state=text, rate=text, phys_state=text, counters__symbol_error=text)
        (port,) = infiniband.ports(tree.infiniband) or ()
        assert (port.state, port.physical_state, port.rate_gbps, port.counters) == ("", "", None, {})

    def test_as_many_adapters_and_ports_as_a_node_may_have(self, tree: HostTree) -> None:
        for number in range(70):
            tree.adapter(f"mlx5_{number}", f"0000:{number:02x}:00.0")
        device = tree.infiniband / "mlx5_0/ports"
        for port in range(2, 40):
            tree.write(device / str(port) / "state", "4: ACTIVE\n")
        found = infiniband.ports(tree.infiniband) or ()
        assert len({port.device for port in found}) == 64
        assert len([port for port in found if port.device == "mlx5_0"]) <= 8


class TestKernel:
    @pytest.mark.parametrize(
        ("text", "driver"),
        [
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs@x)\nGCC …",
                KernelDriver("570.86.15", True),
            ),
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.135  Fri Jan 10 20:00:00 UTC 2025\n",
                KernelDriver("550.135", False),
            ),
            ("NVRM version: " + "x" * 5000, None),
            ("", None),
        ],
    )
    def test_the_driver_that_is_loaded(self, tree: HostTree, text: str, driver: KernelDriver | None) -> None:
        tree.write(tree.proc / "driver/nvidia/version", text)
        assert kernel.driver(tree.proc) == driver

    def test_modules_and_who_uses_them(self, tree: HostTree) -> None:
        assert kernel.modules(tree.proc) is None
        tree.modules({"nvidia_peermem": "", "ib_core": "rdma_cm,nvidia_peermem,mlx5_ib,", "ext4": "", "nvidia": "x,"})
        assert kernel.modules(tree.proc) == {
            "nvidia_peermem": (),
            "ib_core": ("rdma_cm", "nvidia_peermem", "mlx5_ib"),
            "nvidia": ("x",),
        }

    @pytest.mark.parametrize(
        ("text", "seconds"), [("35.12 60.00\n", 35.12), ("", None), ("inf nan", None), ("-1", None)]
    )
    def test_uptime(self, tree: HostTree, text: str, seconds: float | None) -> None:
        tree.write(tree.proc / "uptime", text)
        assert kernel.uptime(tree.proc) == seconds

    @given(text=st.text(max_size=200))
    def test_any_text(self, tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
        proc = tmp_path_factory.mktemp("proc")
        (proc / "driver/nvidia").mkdir(parents=True)
        for name in ("modules", "uptime", "driver/nvidia/version"):
            (proc / name).write_text(text, errors="replace")
        kernel.modules(proc)
        kernel.driver(proc)
        kernel.uptime(proc)


class TestDaemons:
    def look(self, tree: HostTree) -> tuple[Daemons, ManualClock]:
        clock = ManualClock()
        return Daemons(tree.proc, clock=clock), clock

    def test_found_by_the_fifteen_characters_that_the_kernel_keeps(self, tree: HostTree) -> None:
        tree.process(700, "nv-fabricmanager", started=5)
        tree.process(701, "nvidia-imex-ctl")
        daemons, _ = self.look(tree)
        assert daemons.look() == {FABRIC_MANAGER: Daemon(pid=700, started=5)}

    def test_a_container_without_the_nodes_processes_cannot_tell(self, tree: HostTree) -> None:
        tree.process(2, "sh")
        tree.process(700, "nv-fabricmanager")
        assert self.look(tree)[0].look() is None

    def test_a_restart_is_seen_at_the_next_look(self, tree: HostTree) -> None:
        tree.process(700, "nv-fabricmanager", started=5)
        daemons, _ = self.look(tree)
        daemons.look()
        tree.ended(700)
        tree.process(900, "nv-fabricmanager", started=50)
        assert daemons.look() == {FABRIC_MANAGER: Daemon(pid=900, started=50)}

    def test_a_pid_that_another_process_has_inherited(self, tree: HostTree) -> None:
        tree.process(700, "nv-fabricmanager", started=5)
        daemons, _ = self.look(tree)
        daemons.look()
        tree.process(700, "nv-fabricmanager", started=9)
        assert daemons.look() == {FABRIC_MANAGER: Daemon(pid=700, started=9)}
        tree.process(700, "bash", started=9)
        assert daemons.look() == {}

    def test_a_zombie_does_not_run(self, tree: HostTree) -> None:
        tree.process(700, "nv-fabricmanager", state="Z")
        assert self.look(tree)[0].look() == {}

    @pytest.mark.parametrize(("wanted", "seconds"), [([IMEX], 30), ([FABRIC_MANAGER], 300), ([], 300)])
    def test_all_processes_are_gone_through_rarely(self, tree: HostTree, wanted: list[str], seconds: float) -> None:
        tree.process(50, "nv-fabricmanager")
        daemons, clock = self.look(tree)
        assert set(daemons.look(wanted=wanted) or ()) == {FABRIC_MANAGER}
        tree.process(700, "nvidia-imex")
        clock.advance(seconds - 1)
        assert set(daemons.look(wanted=wanted) or ()) == {FABRIC_MANAGER}
        clock.advance(1)
        assert set(daemons.look(wanted=wanted) or ()) == {FABRIC_MANAGER, IMEX}

    def test_one_that_ran_is_looked_for_where_nothing_else_asks_for_it(self, tree: HostTree) -> None:
        tree.process(50, "nv-fabricmanager")
        daemons, clock = self.look(tree)
        daemons.look()
        tree.ended(50)
        assert daemons.look() == {}
        tree.process(60, "nv-fabricmanager")
        clock.advance(30)
        assert set(daemons.look() or ()) == {FABRIC_MANAGER}

    def test_the_nodes_own_before_a_pods_and_the_oldest_of_several(self, tree: HostTree) -> None:
        tree.process(10, "nvidia-imex", started=1, cgroup=POD)
        daemons, _ = self.look(tree)
        assert daemons.look() == {IMEX: Daemon(pid=10, started=1, in_pod=True)}
        for pid, started in ((30, 9), (20, 8)):
            tree.process(pid, "nvidia-imex", started=started)
        assert self.look(tree)[0].look() == {IMEX: Daemon(pid=20, started=8)}


class TestReader:
    def reader(self, tree: HostTree) -> HostReader:
        return HostReader(
            clock=ManualClock(), sysfs_pci=tree.sysfs_pci, sysfs_infiniband=tree.infiniband, proc=tree.proc
        )

    def test_a_node(self, tree: HostTree) -> None:
        tree.device("0000:3b:00.0")
        tree.device("0000:c0:00.0", kind="0x068000")
        tree.adapter("mlx5_0", "0000:5e:00.0")
        tree.process(700, "nv-fabricmanager")
        tree.modules({"nvidia": ""})
        tree.write(tree.proc / "uptime", "1000.00 2.00\n")
        domain = "# nodes\n\n10.0.0.1\n 10.0.0.2\n#10.0.0.3\n"
        imex = tree.write(tree.proc / "1/root/etc/nvidia-imex/nodes_config.cfg", domain)
        facts = self.reader(tree).scan()
        assert (facts.nvswitches, len(facts.pci or ()), len(facts.ports or ())) == (1, 1, 1)
        assert facts.daemons == {FABRIC_MANAGER: Daemon(pid=700, started=100)}
        assert (facts.imex_nodes, facts.uptime_seconds, facts.modules) == (2, 1000.0, {"nvidia": ()})
        assert facts.imex_written == imex.stat().st_ctime_ns

    def test_nothing_to_be_seen(self, tmp_path: Path) -> None:
        nowhere = tmp_path / "nowhere"
        clock = ManualClock()
        facts = HostReader(clock=clock, sysfs_pci=nowhere, sysfs_infiniband=nowhere, proc=nowhere).scan()
        assert facts == HostFacts(taken_at=clock.now(), ports=())

    def test_a_container_without_sysfs_cannot_tell_of_ports(self, tmp_path: Path) -> None:
        assert infiniband.ports(tmp_path / "class/infiniband") is None
        (tmp_path / "class").mkdir()
        assert infiniband.ports(tmp_path / "class/infiniband") == (), "no driver for adapters is loaded"
