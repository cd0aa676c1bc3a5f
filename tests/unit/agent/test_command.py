"""The command: its flags, its sentences, the process from start to stop."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from gpudiag_agent import listening, options
from gpudiag_agent.options import Options
from gpudiag_agent.run import Agent
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api import wire

AGENT = [sys.executable, "-m", "gpudiag_agent"]


def parse(*arguments: str, **environment: str) -> Options:
    return options.parse(arguments, environment)


class TestOptions:
    def test_defaults(self) -> None:
        asked = parse("--node-name", "n")
        assert (asked.node_name, asked.host, asked.port, asked.source) == ("n", "", 9810, "nvml")
        assert (asked.kmsg, asked.interval) == (Path("/dev/kmsg"), 10.0)

    def test_the_kubelet_of_a_real_node_is_asked_unless_told_otherwise(self) -> None:
        assert parse().pod_resources == Path("/var/lib/kubelet/pod-resources/kubelet.sock")
        assert parse("--pod-resources", "none").pod_resources is None
        assert parse("--source", "simulated").pod_resources is None
        assert parse("--source", "simulated", "--pod-resources", "/x").pod_resources == Path("/x")

    def test_a_simulated_node_has_its_own_kernel_log_unless_told_otherwise(self) -> None:
        assert parse("--source", "simulated").kmsg is None
        assert parse("--source", "simulated", "--kmsg", "x").kmsg == Path("x")

    def test_every_flag_has_a_variable_and_the_flag_wins(self) -> None:
        variables = {
            "GPUDIAG_NODE_NAME": "a",
            "GPUDIAG_HOST": "::1",
            "GPUDIAG_PORT": "1",
            "GPUDIAG_SOURCE": "simulated",
            "GPUDIAG_SCENARIO": "t4-1",
            "GPUDIAG_KMSG": "/k",
            "GPUDIAG_INTERVAL": "1m",
            "GPUDIAG_SYSFS_PCI": "/p",
            "GPUDIAG_LOG_LEVEL": "debug",
            "GPUDIAG_POD_RESOURCES": "/s",
            "GPUDIAG_PROC": "/h",
            "GPUDIAG_POD_LOGS": "/l",
        }
        asked = parse(**variables)
        assert asked == Options(
            node_name="a",
            host="::1",
            port=1,
            source="simulated",
            scenario="t4-1",
            kmsg=Path("/k"),
            interval=60.0,
            sysfs_pci=Path("/p"),
            log_level="debug",
            pod_resources=Path("/s"),
            proc=Path("/h"),
            pod_logs=Path("/l"),
        )
        assert parse("--port", "2", **variables).port == 2
        assert parse(GPUDIAG_PORT="").port == 9810

    @pytest.mark.parametrize(
        ("arguments", "environment", "words"),
        [
            (["--port", "99999"], {}, ["--port", "'99999'", "0 to 65535"]),
            (["--interval", "10"], {}, ["--interval", "'10'", "30s"]),
            (["--interval", "1ms"], {}, ["--interval", "1s to 1h"]),
            (["--source", "rocm"], {}, ["--source", "'rocm'", "nvml, simulated"]),
            (["--node-name", "a b"], {}, ["--node-name", "'a b'", "letters"]),
            (["--host", "a b"], {}, ["--host", "'a b'", "address"]),
            (["--colour"], {}, ["--colour"]),
            (["--scenario", "x"], {}, ["--scenario", "--source simulated"]),
            ([], {"GPUDIAG_PORT": "x"}, ["GPUDIAG_PORT", "'x'", "0 to 65535"]),
        ],
    )
    def test_wrong_usage_is_one_sentence_and_status_2(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        words: list[str],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            options.parse(arguments, environment)
        said = capsys.readouterr().err
        assert caught.value.code == 2
        assert said.count("\n") == 1
        assert [word for word in words if word not in said] == []

    def test_help_teaches_every_flag(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            parse("--help")
        page = capsys.readouterr().out
        for name in Options.__struct_fields__:
            assert f"--{name.replace('_', '-')}" in page
        assert "examples:" in page
        assert "GPUDIAG_NODE_NAME" in page


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(flag: str) -> None:
    code = f"import sys; sys.argv = ['a', '{flag}']\ntry:\n  from gpudiag_agent.__main__ import main; main()\n"
    code += "except SystemExit: pass\nprint(sorted({'asyncio','aiohttp','yaml','pynvml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_agent_does_without_heavy_libraries() -> None:
    code = "import sys, gpudiag_agent.run\nprint(sorted({'pydantic','kubernetes','kopf','yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class TestListening:
    def test_all_addresses_is_one_port_for_both_families(self) -> None:
        with listening.listen("", 0) as sock:
            port = sock.getsockname()[1]
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
            if sock.family == socket.AF_INET6:
                socket.create_connection(("::1", port), timeout=2).close()

    def test_a_taken_port_is_said(self) -> None:
        with listening.listen("127.0.0.1", 0) as sock, pytest.raises(OSError, match="in use"):
            listening.listen("127.0.0.1", sock.getsockname()[1])

    def test_loopback(self) -> None:
        assert all(map(listening.is_loopback, ("127.0.0.1", "127.3.2.1", "::1", "localhost")))
        assert not any(map(listening.is_loopback, ("", "0.0.0.0", "::", "10.0.0.1", "node")))


class Driver:
    """A source with one GPU, for the agent as a whole."""

    closed = False

    async def sample(self) -> Sample:
        gpu = GPUSample(index=0, uuid="GPU-0", pci="00000000:3B:00.0", temperature_celsius=40)
        return Sample(taken_at=time.time(), driver_version="570", gpus=(gpu,))

    async def close(self) -> None:
        self.closed = True


@asynccontextmanager
async def agent(tmp_path: Path, driver: Driver) -> AsyncIterator[str]:
    places = ["--kmsg", str(tmp_path / "log"), "--sysfs-pci", str(tmp_path / "pci"), "--proc", str(tmp_path / "proc")]
    (tmp_path / "proc" / "2").mkdir(parents=True)
    (tmp_path / "proc" / "2" / "stat").write_text(f"2 (kthreadd) S {'0 ' * 18}0 0\n")
    asked = parse("--node-name", "n", "--pod-resources", "none", *places)
    with listening.listen("127.0.0.1", 0) as sock:
        running = Agent(asked, source=driver)
        task = asyncio.create_task(running.run(sock))
        yield listening.url(sock)
        running.stop()
        async with asyncio.timeout(2):
            await task


async def ready(client: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(5):
        while (await client.get(f"{url}/readyz")).status != 200:
            await asyncio.sleep(0.005)


async def test_from_the_kernel_log_to_the_one_who_waits(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("3,7,1000000,-;NVRM: Xid (PCI:0000:3b:00): 31, pid=5, name=train, before the agent\n")
    driver = Driver()
    async with agent(tmp_path, driver) as url, aiohttp.ClientSession() as client:
        await ready(client, url)
        answer = await client.get(f"{url}/v1/report")
        report = wire.decode(await answer.read())
        assert [event.code for event in report.xids] == [31], "the first report has this boot's XIDs"
        assert report.xids[0].id == f"{report.agent.boot_id}/7"
        assert report.capabilities == ()
        asked = asyncio.create_task(
            client.get(f"{url}/v1/report?wait=5s", headers={"If-None-Match": answer.headers["ETag"]})
        )
        await asyncio.sleep(0.02)
        began = time.monotonic()
        with log.open("a") as file:
            file.write("NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n")
        changed = wire.decode(await (await asked).read())
        assert time.monotonic() - began < 0.25
        assert (changed.findings[0].reason, changed.findings[0].subject.gpu_uuid) == ("GPULost", "GPU-0")
    assert driver.closed


async def test_no_kernel_log_is_a_capability_and_no_illness(tmp_path: Path) -> None:
    async with agent(tmp_path, Driver()) as url, aiohttp.ClientSession() as client:
        await ready(client, url)
        report = wire.decode(await (await client.get(f"{url}/v1/report")).read())
        assert [gap.reason for gap in report.capabilities] == ["NoKernelLog"]
        assert report.health == "Healthy"


async def test_stopping_lets_waiters_go(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as client:
        async with agent(tmp_path, Driver()) as url:
            await ready(client, url)
            tag = (await client.get(f"{url}/v1/report")).headers["ETag"]
            asked = asyncio.create_task(client.get(f"{url}/v1/report?wait=60s", headers={"If-None-Match": tag}))
            await asyncio.sleep(0.05)
        assert (await asked).status == 304


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GPUDIAG_")}
    return subprocess.Popen([*AGENT, *arguments], stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_serves_logs_json_and_stops_in_time(number: signal.Signals) -> None:
    with start("--source", "simulated", "--host", "127.0.0.1", "--port", "0", "--node-name", "n") as process:
        assert process.stderr is not None
        first = json.loads(process.stderr.readline())
        assert (first["message"], first["level"], first["node"]) == ("serving", "info", "n")
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", first["url"])
        began = time.monotonic()
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(5) == 0
        assert time.monotonic() - began < 2
        assert [json.loads(line)["message"] for line in rest.splitlines()] == ["stopped"]


def test_plain_http_for_others_is_warned_of_once() -> None:
    with start("--source", "simulated", "--host", "0.0.0.0", "--port", "0") as process:
        assert process.stderr is not None
        lines = [json.loads(process.stderr.readline()) for _ in range(2)]
        process.terminate()
        rest = process.stderr.read()
    assert [line["level"] for line in lines] == ["info", "warning"]
    assert "served without TLS and tokens" in lines[1]["message"]
    assert "warning" not in rest


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--source", "simulated", "--scenario", "nope"], 2, "--scenario: nope is neither a file"),
        (["--source", "simulated", "--host", "203.0.113.1"], 1, "cannot listen on --host 203.0.113.1"),
    ],
)
def test_a_start_that_fails_says_why(arguments: list[str], status: int, words: str) -> None:
    with start("--port", "0", *arguments) as process:
        _, said = process.communicate(timeout=10)
    assert process.returncode == status
    assert words in said
