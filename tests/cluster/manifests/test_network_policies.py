"""Who may talk to whom. No network here enforces policies: an evaluator reads the rendered objects (policies.py)."""

from collections.abc import Callable

import pytest
from tests.cluster.manifests.policies import Place, allowed, selects
from tests.cluster.manifests.rendering import Object

Render = Callable[..., list[Object]]
pytestmark = pytest.mark.cluster

HOME = "gpudiag-system"
AGENT, OPERATOR, FACADE, DNS, API = 9810, 9811, 9812, 53, 6443
FACADE_METRICS = 9813


def ours(name: str) -> Place:
    return Place(HOME, {"app.kubernetes.io/name": name}, {"kubernetes.io/metadata.name": HOME})


def theirs(namespace: str, **labels: str) -> Place:
    named = {"kubernetes.io/metadata.name": namespace}
    return Place(
        namespace, {"app": "any"}, {**named, **{key.replace("_", "/"): value for key, value in labels.items()}}
    )


agent, operator, facade = (ours(f"gpudiag-{part}") for part in ("agent", "operator", "mcp"))
stranger, prometheus = theirs("team-a"), theirs("monitoring")
client = Place("team-b", {}, {"gpudiag.dev/mcp-client": "true"})
api_server = Place(ip="10.0.0.1")
internet = Place(ip="93.184.216.34")


@pytest.fixture
def policies(render: Render) -> list[Object]:
    return [item for item in render(components=["mcp"]) if item["kind"] == "NetworkPolicy"]


@pytest.fixture
def monitored(render: Render) -> list[Object]:
    return [item for item in render(components=["mcp", "monitoring"]) if item["kind"] == "NetworkPolicy"]


def test_agents_answer_the_operator_and_nobody_else(policies: list[Object]) -> None:
    assert allowed(policies, operator, agent, AGENT)
    for other in (stranger, prometheus, facade, agent, api_server, internet, ours("anything")):
        assert not allowed(policies, other, agent, AGENT)
    assert not allowed(policies, operator, agent, 22)


def test_a_namesake_in_another_namespace_is_not_the_operator(policies: list[Object]) -> None:
    assert not allowed(policies, Place("team-a", operator.labels, {}), agent, AGENT)


def test_agents_call_the_api_server_and_nobody_else(policies: list[Object]) -> None:
    assert allowed(policies, agent, api_server, API)
    for other, port in ((operator, OPERATOR), (api_server, 22), (internet, 80), (stranger, 80)):
        assert not allowed(policies, agent, other, port)
    assert not allowed(policies, agent, theirs("kube-system"), DNS, "UDP")


@pytest.mark.parametrize("caller", [operator, facade])
def test_operator_and_facade_call_dns_and_the_api_server(policies: list[Object], caller: Place) -> None:
    assert allowed(policies, caller, theirs("kube-system"), DNS, "UDP")
    assert allowed(policies, caller, Place(ip="169.254.20.10"), DNS, "TCP")
    assert allowed(policies, caller, api_server, API)
    assert allowed(policies, caller, api_server, 443)
    assert not allowed(policies, caller, stranger, 80)


def test_the_facade_never_reaches_an_agent(policies: list[Object]) -> None:
    assert not allowed(policies, facade, agent, AGENT)


def test_the_facade_answers_the_namespaces_that_are_marked(policies: list[Object]) -> None:
    assert allowed(policies, client, facade, FACADE)
    assert not allowed(policies, client, facade, FACADE_METRICS)
    for other in (stranger, prometheus, internet):
        assert not allowed(policies, other, facade, FACADE)


def test_nobody_calls_the_operator(policies: list[Object]) -> None:
    for other in (stranger, prometheus, agent, facade, internet):
        assert not allowed(policies, other, operator, OPERATOR)


def test_prometheus_may_scrape_when_it_is_allowed_and_learns_nothing_else(
    policies: list[Object], monitored: list[Object]
) -> None:
    for target, port in ((agent, AGENT), (operator, OPERATOR), (facade, FACADE_METRICS)):
        assert not allowed(policies, prometheus, target, port)
        assert allowed(monitored, prometheus, target, port)
        assert not allowed(monitored, stranger, target, port)
    assert not allowed(monitored, prometheus, facade, FACADE)
    assert not allowed(monitored, agent, internet, 80), "an ingress policy opens no way out"


def test_every_pod_of_ours_is_isolated_both_ways(policies: list[Object], render: Render) -> None:
    items = render(components=["mcp", "mcp-create", "monitoring", "high-availability", "proxy-routing"])
    for workload in (item for item in items if item["kind"] in {"Deployment", "DaemonSet"}):
        labels = workload["spec"]["template"]["metadata"]["labels"]
        found = [item["spec"] for item in policies if selects(item["spec"]["podSelector"], labels)]
        assert {direction for spec in found for direction in spec["policyTypes"]} == {"Ingress", "Egress"}


def test_without_policies_everything_is_open() -> None:
    """So that a rendering without any would not pass unnoticed."""
    assert allowed([], internet, agent, AGENT)
