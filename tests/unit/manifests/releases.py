"""What former releases installed: charts kept in tests/fixtures/releases by tools/freeze.py."""

import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CHARTS = sorted((ROOT / "tests" / "fixtures" / "releases").glob("*/gpudiag-*.tgz"))
Schema = dict[str, Any]


def crds(chart: Path) -> dict[str, dict[str, Any]]:
    """The CRDs of a chart by name."""
    found = {}
    with tarfile.open(chart) as tar:
        for name in tar.getnames():
            file = tar.extractfile(name)
            if "/crds/" in name and file is not None:
                crd = yaml.safe_load(file.read())
                found[crd["metadata"]["name"]] = crd
    return found


def current() -> dict[str, dict[str, Any]]:
    """The CRDs of now."""
    found = [yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml")]
    return {crd["metadata"]["name"]: crd for crd in found}


def schema(crd: dict[str, Any]) -> Schema:
    """The schema of its only version."""
    (version,) = crd["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]
    return found


def breaks(old: Schema, new: Schema, path: str = "") -> list[str]:
    """What an object that was valid may lose, or be refused for, under the newer schema."""
    found = [f"{path or 'it'}: {what}" for what in (*_words(old, new), *_limits(old, new), *_rules(old, new))]
    found += [f"{path}.{name}: is required now" for name in _more(old, new, "required")]
    for name, each in old.get("properties", {}).items():
        if name in new.get("properties", {}):
            found += breaks(each, new["properties"][name], f"{path}.{name}")
        else:
            found.append(f"{path}.{name}: is gone")
    for word in ("items", "additionalProperties"):
        if isinstance(old.get(word), dict) and isinstance(new.get(word), dict):
            found += breaks(old[word], new[word], f"{path}[]")
    return found


def _words(old: Schema, new: Schema) -> Iterator[str]:
    for word in ("type", "format"):
        if old.get(word) != new.get(word):
            yield f"{word} is {new.get(word)}, was {old.get(word)}"
    if "default" in old and old["default"] != new.get("default"):
        yield f"the default is {new.get('default')!r}, was {old['default']!r}"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield "another pattern"
    if "enum" in new and "enum" not in old:
        yield f"only allows {new['enum']} now"
    elif "enum" in new and (gone := _more(new, old, "enum")):
        yield f"no longer allows {gone}"


def _limits(old: Schema, new: Schema) -> Iterator[str]:
    for word in ("minimum", "minLength", "minItems"):
        if word in new and new[word] > old.get(word, -math.inf):
            yield f"{word} rose to {new[word]}"
    for word in ("maximum", "maxLength", "maxItems", "maxProperties"):
        if word in new and new[word] < old.get(word, math.inf):
            yield f"{word} fell to {new[word]}"


def _rules(old: Schema, new: Schema) -> Iterator[str]:
    known = {rule["rule"] for rule in old.get("x-kubernetes-validations", ())}
    for rule in new.get("x-kubernetes-validations", ()):
        if rule["rule"] not in known:
            yield f"a new rule {rule['rule']!r}"


def _more(old: Schema, new: Schema, word: str) -> list[str]:
    """Entries that a list has only in the newer one."""
    return sorted(set(new.get(word, ())) - set(old.get(word, ())))
