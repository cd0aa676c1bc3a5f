"""Label selectors: matching, and the two forms they are written in.

The structured form of objects (``matchLabels``, ``matchExpressions``) and the text form of flags and of kubectl
(``a=b,c!=d,e in (x,y),!f``). Pure: the operator matches thousands of nodes against hundreds of diagnostics without
asking the API server.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_TOKEN = re.compile(r"\s*(?:(?P<op>==|!=|=|!|,|\(|\))|(?P<word>[^\s=!,()<>]+))")


class SelectorError(ValueError):
    """A selector that means nothing; the message quotes the part and says what is expected."""


class Requirement(msgspec.Struct, frozen=True):
    """One condition on one label."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it. As in Kubernetes, ``NotIn`` is met by an absent label."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels

    def __str__(self) -> str:
        """The text form."""
        match self.operator:
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"
            case "In":
                return f"{self.key} in ({','.join(sorted(self.values))})"
            case "NotIn":
                return f"{self.key} notin ({','.join(sorted(self.values))})"


class Selector(msgspec.Struct, frozen=True):
    """Conditions that must all be met. Without any it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet every requirement."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        """The text form, as ``parse`` and the API server read it."""
        return ",".join(map(str, self.requirements))


EVERYTHING = Selector()


def from_object(selector: Mapping[str, Any]) -> Selector:
    """Read a LabelSelector object.

    Args:
        selector: ``{"matchLabels": {key: value}, "matchExpressions": [{key, operator, values}]}``, both optional.

    Raises:
        SelectorError: unknown operator, values where none belong or none where they do, a bad key or value.
    """
    labels = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or ()
    return Selector(
        (
            *(_requirement(key, "In", (value,)) for key, value in labels.items()),
            *(
                _requirement(item.get("key", ""), item.get("operator", ""), item.get("values") or ())
                for item in expressions
            ),
        )
    )


def parse(text: str) -> Selector:
    """Read the text form: ``a=b``, ``a==b``, ``a!=b``, ``a in (x,y)``, ``a notin (x)``, ``a``, ``!a``; commas between.

    Raises:
        SelectorError: the text is not a selector; the message quotes where.
    """
    tokens = _Tokens(text)
    requirements: list[Requirement] = []
    while tokens.peek() is not None:
        requirements.append(_one(tokens))
        if tokens.peek() is not None:
            tokens.expect(",")
            if tokens.peek() is None:
                raise SelectorError(f"label selector {text!r}: ends with a comma")
    return Selector(tuple(requirements))


class _Tokens:
    """Words and signs of a selector, with one token of look-ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens: list[str] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if match is None:
                raise SelectorError(
                    f"label selector {text!r}: cannot read {text[at:].strip()!r}; use =, !=, in (…), notin (…)"
                )
            self._tokens.append(match["op"] or match["word"])
            at = match.end()
        self._tokens.reverse()

    def peek(self) -> str | None:
        return self._tokens[-1] if self._tokens else None

    def take(self) -> str:
        return self._tokens.pop() if self._tokens else ""

    def expect(self, sign: str) -> None:
        found = self.take()
        if found != sign:
            raise SelectorError(f"label selector {self.text!r}: expected {sign!r}, found {found or 'the end'!r}")


def _one(tokens: _Tokens) -> Requirement:
    first = tokens.take()
    if first == "!":
        return _requirement(tokens.take(), "DoesNotExist", ())
    match tokens.peek():
        case None | ",":
            return _requirement(first, "Exists", ())
        case "=" | "==":
            tokens.take()
            return _requirement(first, "In", (_value(tokens),))
        case "!=":
            tokens.take()
            return _requirement(first, "NotIn", (_value(tokens),))
        case "in" | "notin" as word:
            tokens.take()
            return _requirement(first, "In" if word == "in" else "NotIn", _list(tokens))
        case other:
            raise SelectorError(
                f"label selector {tokens.text!r}: expected =, !=, in or notin after {first!r}, found {other!r}"
            )


def _value(tokens: _Tokens) -> str:
    return "" if tokens.peek() in (None, ",") else tokens.take()


def _list(tokens: _Tokens) -> tuple[str, ...]:
    tokens.expect("(")
    values = [_value(tokens) if tokens.peek() != ")" else ""]
    while tokens.peek() == ",":
        tokens.take()
        values.append(_value(tokens) if tokens.peek() != ")" else "")
    tokens.expect(")")
    return tuple(values)


def _requirement(key: str, operator: str, values: Iterable[str]) -> Requirement:
    _check_key(key)
    wanted = frozenset(values)
    for value in wanted:
        if value and not _NAME.fullmatch(value):
            raise SelectorError(f"label value {value!r}: up to 63 letters, digits, '-', '_', '.', no sign at an end")
    match operator:
        case "In" | "NotIn":
            if not wanted:
                raise SelectorError(f"label selector on {key!r}: {operator} needs at least one value")
            return Requirement(key, operator, wanted)
        case "Exists" | "DoesNotExist":
            if wanted:
                raise SelectorError(f"label selector on {key!r}: {operator} takes no values")
            return Requirement(key, operator)
        case _:
            raise SelectorError(
                f"label selector on {key!r}: unknown operator {operator!r}; use In, NotIn, Exists or DoesNotExist"
            )


def _check_key(key: str) -> None:
    prefix, slash, name = key.rpartition("/")
    if not _NAME.fullmatch(name) or (slash and not _PREFIX.fullmatch(prefix)):
        raise SelectorError(f"label key {key!r}: expected a name such as 'pool' or 'example.com/pool'")
