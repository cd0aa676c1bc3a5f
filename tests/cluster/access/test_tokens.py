"""Tokens of the TokenRequest API, reviewed by a real API server."""

from pathlib import Path

import pytest
from tests.cluster.access.conftest import AUDIENCE, Start, account, signed

from gpudiag_cli.controlplane import ControlPlane, Kubectl

pytestmark = pytest.mark.cluster


def test_who_may_read_and_who_may_not(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str, start: Start, tmp_path: Path
) -> None:
    agent = start(*account(control_plane, kubectl, namespace, tmp_path))
    agent.until(lambda: agent.probe("/readyz")[0] == 200)

    def token(name: str, audience: str | None = AUDIENCE) -> str:
        return control_plane.service_account_token(name, namespace=namespace, audience=audience, duration="10m")

    def asked(given: str | None) -> tuple[int, str]:
        status, said = agent.get("/v1/report", given)
        return status, said.get("detail", "")

    good = token("gpudiag-operator")
    assert asked(good)[0] == 200
    assert asked(None) == (401, asked(None)[1])
    assert "kubectl create token" in asked(None)[1]
    assert asked("nonsense")[0] == 401
    assert asked(good[:-8] + "AAAAAAAA")[0] == 401, "a signature that is none"
    assert asked(token("gpudiag-operator", None))[0] == 401, "for the API server, not for agents"
    assert asked(token("gpudiag-operator", "gpudiag-mcp"))[0] == 401
    status, said = asked(token("stranger"))
    assert status == 403
    assert f"{namespace}/stranger may not read" in said
    assert asked(signed(control_plane, kubectl, namespace, ends_in=60))[0] == 200
    assert asked(signed(control_plane, kubectl, namespace, ends_in=-120))[0] == 401, (
        "over; the API server allows a minute for clocks"
    )
    assert asked(signed(control_plane, kubectl, namespace, ends_in=60, audience="gpudiag-mcp"))[0] == 401


def test_an_agent_without_the_right_to_review_says_so(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str, start: Start, tmp_path: Path
) -> None:
    flags = account(control_plane, kubectl, namespace, tmp_path)
    kubectl("delete", "clusterrolebinding", f"test-agent-{namespace}")
    agent = start(*flags)
    token = control_plane.service_account_token("gpudiag-operator", namespace=namespace, audience=AUDIENCE)
    agent.until(lambda: agent.probe("/readyz")[0] == 200)
    status, said = agent.get("/v1/report", token)
    assert (status, said["title"]) == (503, "AuthUnavailable")
    assert "grant it to create tokenreviews" in said["detail"]


@pytest.mark.slow
def test_while_the_api_server_is_away_known_tokens_stay_good_until_they_end(start: Start, tmp_path: Path) -> None:
    with ControlPlane.start(tmp_path / "plane", controller_manager=False) as plane:
        kubectl = plane.client()
        kubectl("create", "namespace", "gpudiag-system")
        agent = start(*account(plane, kubectl, "gpudiag-system", tmp_path))
        agent.until(lambda: agent.probe("/readyz")[0] == 200)
        lasting, unknown = (
            plane.service_account_token("gpudiag-operator", audience=AUDIENCE, duration=f"{minutes}m")
            for minutes in (10, 11)
        )
        ending = signed(plane, kubectl, "gpudiag-system", ends_in=6)
        assert agent.get("/v1/report", lasting)[0] == 200
        assert agent.get("/v1/report", ending)[0] == 200
        plane.stop_apiserver()
        assert agent.get("/v1/report", lasting)[0] == 200
        status, said = agent.get("/v1/report", unknown)
        assert (status, said["title"]) == (503, "AuthUnavailable")
        agent.until(lambda: agent.get("/v1/report", ending)[0] == 503)
        plane.start_apiserver()
        agent.until(lambda: agent.get("/v1/report", unknown)[0] == 200)
