"""Alerts and dashboard name series and labels that agent and operator really export (Prometheus: tests/cluster)."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gpudiag_api.vocabulary import Health
from gpudiag_operator.agent_tls.made import CertificateCollector
from gpudiag_operator.domain import NodeState
from gpudiag_operator.observability.metrics import CollectStats, Metrics
from gpudiag_operator.settings import Settings

FOLDER = Path(__file__).resolve().parents[3] / "manifests" / "components" / "monitoring"
ALERTS = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["spec"]["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
OF_THE_TARGET = {"pod", "instance", "job", "namespace"}

Exposed = dict[str, set[str]]


def series(*pages: str) -> Exposed:
    """Labels by name of series; no labels where a family has no series at the moment."""
    found: Exposed = defaultdict(set)
    for page in pages:
        for family in text_string_to_metric_families(page):
            found[family.name if family.type != "counter" else f"{family.name}_total"] |= set()
            for sample in family.samples:
                found[sample.name] |= set(sample.labels)
    return found


def of_operator() -> str:
    metrics = Metrics()
    metrics.watch_fleet(lambda: [NodeState(name="n", health=Health.HEALTHY)])
    metrics.watch_leases(lambda: {"gpudiag-operator": True})
    metrics.watch_ages(lambda: {"nodes": 1.0}, lambda: {"nodes": 0.0})
    metrics.watch_collection(lambda: CollectStats(calls={"sent": 1}, opened=0, waiting=0, waits=0, waited_seconds=0.0))
    metrics.written("gpunodes", "patch")
    metrics.registry.register(CertificateCollector(lambda: 2_000_000_000.0))
    return generate_latest(metrics.registry).decode()


def of_agent(folder: Path) -> str:
    """The page of the real command over simulated GPUs, once it has looked at them, with an XID in its log."""
    log, kmsg = folder / "agent.log", folder / "kmsg"
    kmsg.write_text("NVRM: Xid (PCI:0000:04:00): 79, GPU has fallen off the bus.\n")
    command = [sys.executable, "-m", "gpudiag_agent", "--source", "simulated", "--host", "127.0.0.1", "--port", "0"]
    with (
        log.open("wb") as output,
        subprocess.Popen([*command, "--kmsg", str(kmsg)], stdout=output, stderr=output) as process,
    ):
        try:
            deadline = time.monotonic() + 30
            while True:
                assert time.monotonic() < deadline, log.read_text()
                assert process.poll() is None, log.read_text()
                if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
                    with urllib.request.urlopen(f"{found.group()}/metrics", timeout=5) as answer:
                        page: str = answer.read().decode()
                    if "gpudiag_gpu_temperature_celsius{" in page and "gpudiag_gpu_xid_events_total{" in page:
                        return page
                time.sleep(0.05)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Exposed:
    agent = series(of_agent(tmp_path_factory.mktemp("agent")))
    for labels in agent.values():
        labels.add("node")  # of the target: PodMonitor gpudiag-agent sets it
    found = series(of_operator())
    for name, labels in agent.items():
        found[name] = found.get(name, set()) | labels
    return found


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    queries = [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    return [*(rule["expr"] for rule in ALERTS), *panels, *queries]


@pytest.mark.parametrize("expression", expressions())
def test_what_it_asks_for_is_exported(exposed: Exposed, expression: str) -> None:
    names = re.findall(r"\bgpudiag_\w+", expression)
    assert names
    known = set(OF_THE_TARGET)
    for name in names:
        assert name in exposed, name
        known |= exposed[name]
    grouped = [label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")]
    matched = re.findall(r"[{,](\w+)=~?\"", expression)
    assert {*grouped, *matched} <= known


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert {*rule["annotations"]} == {"summary", "description"}
        used = re.findall(r"\$labels\.(\w+)", f"{rule['annotations']}")
        grouped = re.search(r"by \(([^)]*)\)", rule["expr"])
        if grouped:
            assert set(used) <= {label.strip() for label in grouped[1].split(",")}, "aggregated away"


def test_the_health_that_alerts_compare_with_is_the_one_exported() -> None:
    by_alert = {rule["alert"]: rule["expr"] for rule in ALERTS}
    for alert, health in (
        ("GPUNodeUnhealthy", Health.UNHEALTHY),
        ("GPUNodeUnknown", Health.UNKNOWN),
        ("GPUNodeDegraded", Health.DEGRADED),
    ):
        assert by_alert[alert].endswith(f"== {health.badness}")


def test_the_alert_of_a_certificate_that_ends_speaks_after_the_renewal_and_before_the_end() -> None:
    rule = next(rule for rule in ALERTS if rule["alert"] == "GPUDiagAgentCertificateEnds")
    left = re.search(r"time\(\) < (\d+) \* 86400$", rule["expr"])
    assert left
    renewed_with_left = Settings.agent_cert_lifetime / 3  # operator/gpudiag_operator/agent_tls/rotation.py
    assert 7 * 86_400 <= int(left[1]) * 86_400 <= renewed_with_left - 7 * 86_400


def test_panels_are_numbered_once_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
