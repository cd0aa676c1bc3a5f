"""Label selectors: both forms agree with each other and with Kubernetes' rules."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_operator.kube.selectors import EVERYTHING, Requirement, Selector, SelectorError, from_object, parse

LABELS = {"pool": "gpu", "zone": "a", "example.com/tier": ""}

keys = st.sampled_from(["pool", "zone", "example.com/tier", "absent"])
values = st.sampled_from(["gpu", "cpu", "a", ""])
requirements = st.one_of(
    st.builds(Requirement, keys, st.sampled_from(["In", "NotIn"]), st.frozensets(values, min_size=1)),
    st.builds(Requirement, keys, st.sampled_from(["Exists", "DoesNotExist"])),
)
selectors = st.builds(Selector, st.lists(requirements, max_size=4).map(tuple))


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("pool=gpu", True),
        ("pool==gpu", True),
        ("pool=cpu", False),
        ("absent=x", False),
        ("pool!=cpu", True),
        ("absent!=x", True),
        ("pool", True),
        ("!pool", False),
        ("!absent", True),
        ("zone in (a, b)", True),
        ("zone notin (a,b)", False),
        ("absent notin (a)", True),
        ("example.com/tier=", True),
        ("example.com/tier in ()", True),
        (" pool = gpu , zone in (a,b) , !absent ", True),
        ("pool=gpu,zone=b", False),
        ("in in (in)", False),
    ],
)
def test_text_form(text: str, matches: bool) -> None:
    assert parse(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ({}, True),
        ({"matchLabels": {"pool": "gpu"}}, True),
        ({"matchLabels": {"pool": "gpu", "zone": "b"}}, False),
        ({"matchExpressions": [{"key": "pool", "operator": "In", "values": ["gpu", "x"]}]}, True),
        ({"matchExpressions": [{"key": "absent", "operator": "NotIn", "values": ["gpu"]}]}, True),
        ({"matchExpressions": [{"key": "pool", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "pool", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"pool": "gpu"}, "matchExpressions": [{"key": "zone", "operator": "Exists"}]}, True),
    ],
)
def test_object_form(selector: dict[str, object], matches: bool) -> None:
    assert from_object(selector).matches(LABELS) is matches


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pool=gpu,", "ends with a comma"),
        (",pool", "expected =, !=, in or notin"),
        ("pool gpu", "expected =, !=, in or notin"),
        ("pool in gpu", "expected '('"),
        ("pool in (gpu", "expected ')', found 'the end'"),
        ("pool>3", "cannot read '>3'"),
        ("-pool=x", "label key '-pool'"),
        ("pool=x/y", "label value 'x/y'"),
        ("UPPER.example/x", "label key"),
        ("a/b/c", "label key"),
        ("!", "label key ''"),
    ],
)
def test_refuses_text(text: str, says: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "selector",
    [
        {"matchExpressions": [{"key": "pool", "operator": "Gt", "values": ["3"]}]},
        {"matchExpressions": [{"key": "pool", "operator": "In"}]},
        {"matchExpressions": [{"key": "pool", "operator": "Exists", "values": ["x"]}]},
        {"matchExpressions": [{"operator": "Exists"}]},
    ],
)
def test_refuses_objects(selector: dict[str, object]) -> None:
    with pytest.raises(SelectorError):
        from_object(selector)


@given(selectors)
def test_what_is_written_is_read_back(selector: Selector) -> None:
    assert parse(str(selector)) == selector


@given(selectors, st.dictionaries(keys, values))
def test_a_selector_is_the_and_of_its_parts(selector: Selector, labels: dict[str, str]) -> None:
    parts = [Selector((requirement,)).matches(labels) for requirement in selector.requirements]
    assert selector.matches(labels) is all(parts)


@given(keys, st.frozensets(values, min_size=1), st.dictionaries(keys, values))
def test_in_and_notin_are_opposites(key: str, wanted: frozenset[str], labels: dict[str, str]) -> None:
    inside = Requirement(key, "In", wanted).matches(labels)
    assert Requirement(key, "NotIn", wanted).matches(labels) is not inside


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(SelectorError):
        parse(text)


def test_the_empty_selector_matches_everything() -> None:
    assert EVERYTHING.matches({})
