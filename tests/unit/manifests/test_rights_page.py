"""docs/rights.md names every rule of every role that the manifests bring, and none that they do not."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "rights.md"
FOLDERS = {
    "base": ROOT / "manifests" / "base",
    **{path.name: path for path in (ROOT / "manifests" / "components").iterdir() if path.is_dir()},
    **{path.name: path for path in (ROOT / "manifests" / "overlays").iterdir() if path.is_dir()},
}

Row = tuple[str, str, str, str, str]
"""Role, what it comes with, where, on, verbs."""


def objects(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.yaml")):
        yield from (item for item in yaml.safe_load_all(path.read_text()) if item)


def on(rule: dict[str, Any]) -> str:
    names = [f"`{name}`" for name in rule.get("resourceNames", ())]
    resources = ", ".join(f"`{resource}`" for resource in rule["resources"])
    return f"{resources} named {', '.join(names)}" if names else resources


def granted() -> set[Row]:
    found: set[Row] = set()
    everything = {name: list(objects(folder)) for name, folder in FOLDERS.items()}
    bound = {
        item["roleRef"]["name"]
        for items in everything.values()
        for item in items
        if item.get("kind") == "ClusterRoleBinding"
    }
    for name, items in everything.items():
        for item in items:
            if item.get("kind") in {"Role", "ClusterRole"}:
                role = item["metadata"]["name"]
                where = "namespace" if item["kind"] == "Role" else "cluster" if role in bound else "unbound"
                found |= {(role, name, where, on(rule), " ".join(rule["verbs"])) for rule in item["rules"]}
            for patch in item.get("patches", ()) if item.get("kind") == "Kustomization" else ():
                if patch.get("target", {}).get("kind") == "ClusterRole":
                    rules = [step["value"] for step in yaml.safe_load(patch["patch"])]
                    role = patch["target"]["name"]
                    found |= {(role, name, "cluster", on(rule), " ".join(rule["verbs"])) for rule in rules}
    return found


def written() -> list[tuple[str, ...]]:
    rows = re.findall(r"^\| `(.*)\|$", PAGE.read_text(), re.MULTILINE)
    return [tuple(cell.strip() for cell in f"`{row}".split("|")) for row in rows]


def test_the_page_says_what_the_manifests_grant() -> None:
    said = {(role.strip("`"), part.strip("`"), *rest[:3]) for role, part, *rest in written()}
    assert said == granted()


def test_every_right_says_what_it_is_for() -> None:
    assert all(len(row) == 6 and row[5] for row in written())
