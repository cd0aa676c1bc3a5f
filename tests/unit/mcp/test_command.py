"""The command line: what it says, what it takes, what it refuses."""

import json
import logging
import socket
from io import StringIO
from pathlib import Path

import pytest
from mcp.server import MCPServer
from tests.unit.mcp.world import FakeAPI, node, service

from gpudiag_api.version import __version__
from gpudiag_mcp import logs
from gpudiag_mcp.__main__ import main
from gpudiag_mcp.options import Options, parse
from gpudiag_mcp.server.stdio import serve_stdio
from gpudiag_mcp.web.serving import listen


def test_defaults_are_safe() -> None:
    assert parse([], {}) == Options()
    assert parse([], {}).transport == "stdio"
    assert parse([], {}).allow_create is False
    assert parse([], {}).host == "127.0.0.1"


def test_every_flag_has_an_environment_twin_and_the_flag_wins() -> None:
    environ = {
        "GPUDIAG_ALLOW_CREATE": "true",
        "GPUDIAG_CREATE_NAMESPACES": "team-a, team-b",
        "GPUDIAG_PORT": "1234",
        "GPUDIAG_METRICS_ADDR": "[::1]:9",
        "GPUDIAG_KUBECONFIG": "/x",
    }
    options = parse(["--port", "99"], environ)
    assert options.allow_create is True
    assert options.create_namespaces == ("team-a", "team-b")
    assert options.port == 99
    assert options.metrics_addr == ("::1", 9)
    assert options.kubeconfig == Path("/x")


def test_over_http_callers_are_authenticated_unless_only_this_machine_can_call() -> None:
    assert parse(["--transport=http", "--host=0.0.0.0"], {}).auth == "tokenreview"
    for host in ("127.0.0.1", "::1", "localhost"):
        assert parse(["--transport=http", "--auth=none", f"--host={host}"], {}).auth == "none"
    assert parse(["--transport=http", "--auth=none", "--host=0.0.0.0", "--insecure-no-auth"], {}).auth == "none"


def test_metrics_are_shown_over_http_and_on_request() -> None:
    assert parse([], {}).metrics_addr is None
    assert parse(["--transport=http"], {}).metrics_addr == ("127.0.0.1", 9813)


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        (["--port", "http"], {}, "write a number from 0 to 65535"),
        (["--transport", "sse"], {}, "stdio"),
        (["--metrics-addr", "9813"], {}, "write host:port"),
        (["--create-namespaces", "Team_A"], {}, "lower-case letters"),
        (["--create-max-active", "0"], {}, "from 1 to 1000"),
        (["--delete"], {}, "--delete"),
        (["--transport", "http", "--auth", "none", "--host", "0.0.0.0"], {}, "--insecure-no-auth"),
        (["--transport", "http", "--auth", "none", "--host", "gpu.example.com"], {}, "--auth tokenreview"),
        (["--allowed-hosts", "http://mcp.example.com"], {}, "write host, host:port or host:*"),
        (["--calls-per-minute", "0"], {}, "from 1 to 100000"),
        ([], {"GPUDIAG_ALLOW_CREATE": "maybe"}, "GPUDIAG_ALLOW_CREATE must be true or false"),
        ([], {"GPUDIAG_TRANSPORT": "sse"}, "GPUDIAG_TRANSPORT must be one of stdio, http"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_write(
    arguments: list[str], environ: dict[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(arguments, environ)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_help_teaches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["gpudiag-mcp", "--help"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().out
    assert "examples:" in said
    assert "GPUDIAG_ALLOW_CREATE" in said


def test_it_tells_its_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["gpudiag-mcp", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out == f"gpudiag-mcp {__version__}\n"


def test_a_log_line_is_json_with_the_id_of_the_call() -> None:
    stream = StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure(level="info", stream=stream)
        with logs.bound(correlationID="abc", tool="get_gpu_health"):
            logging.getLogger("x").info("one\nline")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    line = json.loads(stream.getvalue())
    assert line["correlationID"] == "abc"
    assert line["message"] == "one\nline"
    assert stream.getvalue().count("\n") == 1


async def test_on_stdio_the_process_is_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    one, during = service(FakeAPI(node("gpu-a"))), []

    async def session(_: MCPServer) -> None:
        during.append(one.metrics.registry.get_sample_value("mcp_sessions_active"))

    monkeypatch.setattr(MCPServer, "run_stdio_async", session)
    await serve_stdio(one, parse([], {}))
    assert during == [1]
    assert one.metrics.registry.get_sample_value("mcp_sessions_active") == 0
    assert one.metrics.registry.get_sample_value("mcp_session_duration_seconds_count") == 1


def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    """asyncio sets TCP_NODELAY on connections of a socket that names TCP, and only on these."""
    with listen("127.0.0.1", 0) as at:
        assert at.proto == socket.IPPROTO_TCP
