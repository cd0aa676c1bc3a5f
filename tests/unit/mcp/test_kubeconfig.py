"""Kubeconfig files, credentials and the client, without an API server."""

import base64
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.mcp.world import Clock

from gpudiag_mcp.kube import kubeconfig
from gpudiag_mcp.kube.access import open_access
from gpudiag_mcp.kube.api import GPUDIAGNOSTICS, GPUNODES
from gpudiag_mcp.kube.credentials import Credential, Credentials
from gpudiag_mcp.kube.errors import AccessError
from gpudiag_mcp.kube.kubeconfig import Context, Entry


def write(path: Path, *names: str, current: str = "", user: Any = None) -> Path:
    document = {
        "current-context": current,
        "contexts": [
            {"name": name, "context": {"cluster": f"c-{name}", "user": "me", "namespace": f"ns-{name}"}}
            for name in names
        ],
        "clusters": [{"name": f"c-{name}", "cluster": {"server": f"https://{name}:6443"}} for name in names],
        "users": [{"name": "me", "user": user or {"token": "secret"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_files_are_merged_and_the_first_one_wins(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1", "a", current="a"), write(tmp_path / "2", "a", "b", current="b")
    found = kubeconfig.load(environ={"KUBECONFIG": f"{first}:{tmp_path / 'none'}:{second}"})
    assert found.names == ("a", "b")
    assert found.current == "a"
    assert found.context("").namespace == "ns-a"
    assert found.context("b").cluster.text("server") == "https://b:6443"


def test_a_context_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    found = kubeconfig.load(write(tmp_path / "1", "a", "b", current="a"))
    with pytest.raises(AccessError, match="There is no context 'prod'; pass one of a, b"):
        found.context("prod")


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "There is no kubeconfig"), ("{", "not YAML"), ("[]", "holds no mapping"), ("{}", "names no context")],
)
def test_a_broken_file_is_told_when_it_is_needed_and_not_before(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    found = kubeconfig.load(path)
    with pytest.raises(AccessError, match=says):
        found.context("")


def test_in_a_pod_there_is_one_context() -> None:
    found = kubeconfig.load(environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert found.names == ("in-cluster",)


def context(user: dict[str, Any], base: Path = Path(), /, **cluster: Any) -> Context:
    return Context(
        name="c",
        cluster_name="k",
        user_name="me",
        namespace="default",
        cluster=Entry(fields={"server": "https://k:6443", **cluster}, base=base),
        user=Entry(fields=user, base=base),
    )


async def test_a_token_file_is_read_again_every_minute(tmp_path: Path) -> None:
    path, clock = tmp_path / "token", Clock()
    path.write_text("one\n")
    credentials = Credentials(context({"tokenFile": "token"}, tmp_path), clock=clock)
    assert (await credentials.current()).token == "one"
    path.write_text("two")
    clock.now += 59
    assert (await credentials.current()).token == "one"
    clock.now += 1
    assert (await credentials.current()).token == "two"


def plugin(tmp_path: Path, code: str) -> dict[str, Any]:
    script = tmp_path / "plugin.py"
    script.write_text(code)
    env = [{"name": "WHO", "value": "me"}]
    return {"exec": {"command": sys.executable, "args": [str(script)], "env": env}}


async def test_a_credential_plugin_is_run_and_its_token_kept_until_it_expires(tmp_path: Path) -> None:
    code = (
        "import json, os\n"
        "assert json.loads(os.environ['KUBERNETES_EXEC_INFO'])['kind'] == 'ExecCredential'\n"
        f"open({str(tmp_path / 'runs')!r}, 'a').write('x')\n"
        "print(json.dumps({'status': {'token': os.environ['WHO'], 'expirationTimestamp': '2027-01-15T08:05:00Z'}}))\n"
    )
    clock = Clock()  # 2027-01-15T08:00:00Z
    credentials = Credentials(context(plugin(tmp_path, code)), clock=clock)
    assert (await credentials.current()).token == "me"
    clock.now += 260
    await credentials.current()
    assert (tmp_path / "runs").read_text() == "x"
    clock.now += 20
    await credentials.current()
    assert (tmp_path / "runs").read_text() == "xx"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; print('expired session', file=sys.stderr); sys.exit(1)", r"failed \(expired session\); log in"),
        ("print('hello')", "printed no ExecCredential"),
        ("print('{\"status\": {}}')", "neither a token nor a certificate"),
    ],
)
async def test_a_plugin_that_fails_is_told_in_a_sentence(tmp_path: Path, code: str, says: str) -> None:
    with pytest.raises(AccessError, match=says):
        await Credentials(context(plugin(tmp_path, code))).current()


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ({"tokenFile": "/nowhere"}, "token file /nowhere cannot be read"),
        ({"auth-provider": {}}, "removed in 1.26"),
        ({"exec": {}}, "without a command"),
        ({"exec": {"command": "/nowhere/x"}}, "cannot be started"),
    ],
)
async def test_what_is_missing_is_named(user: dict[str, Any], says: str) -> None:
    if user.get("exec") == {}:
        user = {"exec": {"args": []}}
    with pytest.raises(AccessError, match=says):
        await Credentials(context(user)).current()


async def test_certificates_that_are_none_are_told(tmp_path: Path) -> None:
    bad = base64.b64encode(b"nonsense").decode()
    with pytest.raises(AccessError, match="cannot be used"):
        await open_access(context({"token": "t"}, Path(), **{"certificate-authority-data": bad}))
    with pytest.raises(AccessError, match="cannot be read"):
        await open_access(context({"token": "t"}, tmp_path, **{"certificate-authority": "none.pem"}))
    with pytest.raises(AccessError, match=r"names no server with http\(s\)://"):
        await open_access(context({"token": "t"}, server="ftp://x"))


def test_no_name_leads_to_another_path() -> None:
    assert GPUNODES.path(name="../../pods") == "/apis/gpudiag.dev/v1alpha1/gpunodes/..%2F..%2Fpods"
    assert GPUDIAGNOSTICS.path(namespace="a/b", name="c?d").endswith("/namespaces/a%2Fb/gpudiagnostics/c%3Fd")


def test_a_secret_is_in_no_text_of_a_configuration(tmp_path: Path) -> None:
    found = kubeconfig.load(write(tmp_path / "1", "a", current="a", user={"token": "t0k3n"}))
    assert found.context("").user.text("token") == "t0k3n"
    assert "t0k3n" not in f"{found!r} {found.context('')!r} {Credential(token='t0k3n')!r}"
