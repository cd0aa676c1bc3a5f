"""What was valid under a former release stays valid: the kinds only grow."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.manifests.releases import CHARTS, Schema, breaks, crds, current, schema
from tools.freeze import archive


def test_there_is_a_former_release_to_compare_with() -> None:
    assert CHARTS


@pytest.mark.parametrize("chart", CHARTS, ids=lambda path: path.parent.name)
def test_objects_of_a_former_release_stay_valid_and_whole(chart: Path) -> None:
    now = current()
    for name, old in crds(chart).items():
        assert breaks(schema(old), schema(now[name])) == []
        assert old["spec"]["names"] == now[name]["spec"]["names"]
        assert old["spec"]["scope"] == now[name]["spec"]["scope"]


SPEC = "spec"


def drop(found: Schema) -> None:
    del found["properties"][SPEC]["properties"]["suspend"]


def narrow(found: Schema) -> None:
    found["properties"][SPEC]["properties"]["mode"]["enum"].remove("Once")


def demand(found: Schema) -> None:
    found["properties"][SPEC]["required"] = ["interval"]


def shrink(found: Schema) -> None:
    found["properties"][SPEC]["properties"]["historyLimit"]["maximum"] = 1


def differ(found: Schema) -> None:
    found["properties"][SPEC]["properties"]["interval"]["default"] = "7s"


def rule(found: Schema) -> None:
    found["properties"][SPEC].setdefault("x-kubernetes-validations", []).append({"rule": "has(self.suspend)"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop, ".spec.suspend: is gone"),
        (narrow, ".spec.mode: no longer allows ['Once']"),
        (demand, ".spec.interval: is required now"),
        (shrink, ".spec.historyLimit: maximum fell to 1"),
        (differ, ".spec.interval: the default is '7s', was '30s'"),
        (rule, ".spec: a new rule 'has(self.suspend)'"),
    ],
)
def test_a_change_that_breaks_is_seen(change: Callable[[Schema], None], said: str) -> None:
    old = schema(current()["gpudiagnostics.gpudiag.dev"])
    new = copy.deepcopy(old)
    change(new)
    assert breaks(old, new) == [said]


def test_a_chart_is_kept_as_the_same_bytes_whenever_it_is_packed(tmp_path: Path) -> None:
    chart = tmp_path / "c"
    (chart / "crds").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("name: c\n")
    (chart / "crds" / "k.yaml").write_text("metadata: {name: k}\n")
    first = archive(chart)
    (chart / "Chart.yaml").touch()
    assert archive(chart) == first
    (tmp_path / "c.tgz").write_bytes(first)
    assert crds(tmp_path / "c.tgz") == {"k": {"metadata": {"name": "k"}}}
