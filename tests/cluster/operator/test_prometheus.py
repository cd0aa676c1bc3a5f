"""What a real Prometheus makes of our pages, alerts and dashboard."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.cluster.operator.prometheus import Programs, Prometheus, missing, programs

if TYPE_CHECKING:
    from tests.cluster.operator.conftest import Rig

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

FOLDER = Path(__file__).resolve().parents[3] / "manifests" / "components" / "monitoring"
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["spec"]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
DAY = 24 * 60

FIRES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "GPUNodeUnhealthy": ({'gpudiag_node_health{node="n1"}': "3x99"}, {"node": "n1"}),
    "GPUNodeUnknown": ({'gpudiag_node_health{node="n1"}': "2x99"}, {"node": "n1"}),
    "GPUNodeDegraded": ({'gpudiag_node_health{node="n1"}': "1x99"}, {"node": "n1"}),
    "GPUFleetMostlyUnknown": (
        {'gpudiag_fleet_nodes{health="Unknown"}': "6x99", 'gpudiag_fleet_nodes{health="Healthy"}': "5x99"},
        {},
    ),
    "GPUDiagOperatorAbsent": ({}, {}),
    "GPUDiagNoLeader": (
        {f'gpudiag_operator_leader{{lease="fleet",pod="{pod}"}}': "0x99" for pod in "ab"},
        {"lease": "fleet"},
    ),
    "GPUDiagOperatorBehind": (
        {'gpudiag_operator_index_lag_seconds{resource="nodes"}': "121x99"},
        {"resource": "nodes"},
    ),
    "GPUDiagCircuitBreakersOpen": (
        {f'gpudiag_circuit_breaker_state{{node="n{number}"}}': f"{int(number < 2)}x99" for number in range(9)},
        {},
    ),
    "GPUDiagAgentCertificateEnds": (
        {"gpudiag_operator_agent_certificate_end_timestamp_seconds": f"{13 * DAY * 60 + 61 * 60}x99"},
        {},
    ),
    "GPUDiagSampleOld": ({'gpudiag_agent_sample_age_seconds{node="n1"}': "121x99"}, {"node": "n1"}),
    "GPUDiagKernelLogLost": ({'gpudiag_agent_kernel_log_lost_records_total{node="n1"}': "4+3x99"}, {"node": "n1"}),
    "GPUDiagStateNotWritten": ({'gpudiag_agent_state_write_failures_total{node="n1"}': "4+3x99"}, {"node": "n1"}),
    "GPUDiagThresholdsRefused": ({'gpudiag_agent_config_last_reload_successful{node="n1"}': "0x99"}, {"node": "n1"}),
}
"""By alert: series by the minute in promtool's notation, and the labels that it then has besides its severity."""

WELL = {
    'gpudiag_node_health{node="n1"}': "0x99",
    'gpudiag_fleet_nodes{health="Unknown"}': "5x99",
    'gpudiag_fleet_nodes{health="Healthy"}': "5x99",
    "gpudiag_operator_build_info": "1x99",
    'gpudiag_operator_leader{lease="fleet",pod="a"}': "1x99",
    'gpudiag_operator_leader{lease="fleet",pod="b"}': "0x99",
    'gpudiag_operator_index_lag_seconds{resource="nodes"}': "119x99",
    **{f'gpudiag_circuit_breaker_state{{node="n{number}"}}': f"{int(number < 1)}x99" for number in range(10)},
    "gpudiag_operator_agent_certificate_end_timestamp_seconds": f"{16 * DAY * 60}x99",
    'gpudiag_agent_sample_age_seconds{node="n1"}': "119x99",
    'gpudiag_agent_kernel_log_lost_records_total{node="n1"}': "4x99",
    'gpudiag_agent_state_write_failures_total{node="n1"}': "4x99",
    'gpudiag_agent_config_last_reload_successful{node="n1"}': "1x99",
}
"""As near to every alert as a fleet comes without one."""


@pytest.fixture(scope="module")
def tools() -> Programs:
    if why := missing():
        pytest.skip(f"PROMETHEUS NOT RUN: {why}")
    return programs()


def judged(tools: Programs, folder: Path, series: Mapping[str, str], expected: Mapping[int, Mapping[str, Any]]) -> None:
    """Play series to the rules; ``expected`` alerts (all others: none) by minute."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(RULES), encoding="utf-8")
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": alerts}
            for minute, by_name in expected.items()
            for name, alerts in by_name.items()
        ],
    }
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (folder / "test.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    done = subprocess.run(
        [tools.promtool, "test", "rules", folder / "test.yaml"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def said(rule: Mapping[str, Any], labels: Mapping[str, str], value: str) -> dict[str, Any]:
    """The alert as people get it."""
    told = {}
    for kind, text in rule["annotations"].items():
        for label, word in labels.items():
            text = text.replace(f"{{{{ $labels.{label} }}}}", word)
        told[kind] = text.replace("{{ $value | humanizeDuration }}", value)
        assert "{{" not in told[kind]
    return {"exp_labels": {**rule["labels"], **labels}, "exp_annotations": told}


def minutes(rule: Mapping[str, Any]) -> int:
    word = rule.get("for", "0m")
    return int(word[:-1]) * {"m": 1, "h": 60}[word[-1]]


def test_no_alert_is_left_out_here() -> None:
    assert set(FIRES) == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_it_fires_when_its_time_has_come_and_not_before(tools: Programs, tmp_path: Path, name: str) -> None:
    rule, (series, labels) = ALERTS[name], FIRES[name]
    wait = minutes(rule)
    alert = said(rule, labels, "13d 0h 0m 0s")
    expected: dict[int, dict[str, Any]] = {wait + 1 if wait else 1: {name: [alert]}}
    if wait:
        expected[wait - 1] = {name: []}
    judged(tools, tmp_path, series, expected)


def test_a_fleet_that_is_well_raises_none(tools: Programs, tmp_path: Path) -> None:
    judged(tools, tmp_path, WELL, {minute: {name: [] for name in ALERTS} for minute in (1, 30, 90)})


def alerts(prometheus: Prometheus) -> set[tuple[str, str]]:
    """Names and nodes of those that wait or fire."""
    found = [alert["labels"] for alert in prometheus.ask("alerts")["alerts"]]
    return {(labels["alertname"], labels.get("node", "")) for labels in found}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """Host and port of a real agent with simulated GPUs and an XID in its log."""
    log, kmsg = tmp_path / "agent.log", tmp_path / "kmsg"
    kmsg.write_text("NVRM: Xid (PCI:0000:04:00): 79, GPU has fallen off the bus.\n", encoding="utf-8")
    command = [sys.executable, "-m", "gpudiag_agent", "--source", "simulated", "--host", "127.0.0.1", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--kmsg", str(kmsg)], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 30
        while (found := re.search(r"http://(127\.0\.0\.1:\d+)", log.read_text(encoding="utf-8"))) is None:
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield found[1]
    finally:
        process.terminate()
        process.wait(20)


def test_it_reads_our_pages_and_the_dashboard_shows_a_bad_night(
    tools: Programs, rig: "Rig", agent: str, tmp_path: Path
) -> None:
    for name in ("p1", "p2", "p3"):
        rig.add_node(name)
    rig.diagnostic("fleet", interval="5s")
    operator = rig.start("--breaker-open", "60s")
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
    check: list[str | Path] = [tools.promtool, "check", "metrics"]
    for page in (f"http://{agent}", operator.url):
        with urllib.request.urlopen(f"{page}/metrics", timeout=5) as answer:
            text = answer.read()
        lint = subprocess.run(check, input=text, capture_output=True, check=False, timeout=30)
        assert (lint.returncode, lint.stderr.decode()) == (0, "")
    targets = {"operator": [operator.url.removeprefix("http://")], "agent": [agent]}
    scrape: list[dict[str, Any]] = [
        {"job_name": "operator", "honor_labels": True, "static_configs": [{"targets": targets["operator"]}]},
        {"job_name": "agent", "static_configs": [{"targets": targets["agent"], "labels": {"node": "p9"}}]},
    ]
    (tmp_path / "prometheus").mkdir()
    with Prometheus(tools.prometheus, tmp_path / "prometheus", scrape=scrape, rules=RULES) as prometheus:
        rig.eventually(lambda: {one["job"] for one in prometheus.values("up == 1")} == {"operator", "agent"})
        rig.nodes["p1"].lose_gpu()
        rig.nodes["p2"].close()
        rig.eventually(lambda: prometheus.values('gpudiag_node_health{node="p1"} == 3'))
        rig.eventually(lambda: prometheus.values('gpudiag_circuit_breaker_state{node="p2"} == 1'))

        def empty() -> set[str]:
            return {
                panel["title"]
                for panel in DASHBOARD["panels"]
                for target in panel["targets"]
                if not prometheus.values(target["expr"].replace("$node", ".*"))
            }

        rig.eventually(lambda: not empty(), 30)
        pending = {("GPUNodeUnhealthy", "p1"), ("GPUNodeUnknown", "p2")}
        rig.eventually(lambda: alerts(prometheus) >= pending)
        bad = prometheus.values("max by (node) (gpudiag_node_health) > 0")
        assert {one["node"] for one in bad} == {"p1", "p2"}
