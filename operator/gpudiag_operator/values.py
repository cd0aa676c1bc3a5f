"""Reading one value of a flag: what is allowed, and how to say so.

Each reader takes text as a person wrote it and gives the value, or raises ``WrongValue`` whose message completes the
sentence "--flag must be …".
"""

from collections.abc import Callable
from pathlib import Path

from gpudiag_api import durations
from gpudiag_operator.kube.selectors import parse as parse_selector


class WrongValue(ValueError):  # noqa: N818  (completes a sentence)
    """What is allowed instead, as the end of a sentence that starts with the flag."""


def port(text: str) -> int:
    """A TCP port."""
    return whole(1, 65535, "a port from 1 to 65535")(text)


def whole(low: int, high: int, allowed: str | None = None) -> Callable[[str], int]:
    """A whole number within bounds; ``allowed`` replaces the sentence about them."""

    def read(text: str) -> int:
        if text.isascii() and text.isdecimal() and low <= int(text) <= high:
            return int(text)
        raise WrongValue(allowed or f"a whole number from {low} to {high}")

    return read


def number(low: float, high: float) -> Callable[[str], float]:
    """A number within bounds."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise WrongValue(f"a number from {low:g} to {high:g}")
        return value

    return read


def percent(text: str) -> float:
    """A percentage, as a share from 0.01 to 1."""
    try:
        return number(1, 100)(text.removesuffix("%")) / 100
    except WrongValue:
        raise WrongValue("a percentage from 1% to 100%") from None


def duration(low: str, high: str) -> Callable[[str], float]:
    """A Go duration within bounds, as seconds."""

    def read(text: str) -> float:
        try:
            value = durations.parse(text)
        except ValueError:
            value = -1.0
        if not durations.parse(low) <= value <= durations.parse(high):
            raise WrongValue(f"a duration from {low} to {high}, for example {low}")
        return value

    return read


def address(text: str) -> tuple[str, int]:
    """Host (empty: every address) and port."""
    host, colon, number_text = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if (
        not colon
        or (":" in host and not bracketed)
        or not number_text.isdecimal()
        or not 1 <= int(number_text) <= 65535
    ):
        raise WrongValue("HOST:PORT, [IPv6]:PORT, or :PORT for every address")
    return host.strip("[]"), int(number_text)


def selector(text: str) -> str:
    """A label selector in its text form that selects something in particular."""
    try:
        requirements = parse_selector(text).requirements
    except ValueError as error:
        raise WrongValue(f"a label selector such as pool=gpu,zone in (a,b) ({error})") from None
    if not requirements:
        raise WrongValue("a label selector that is not empty, such as pool=gpu")
    return text


def words(text: str) -> tuple[str, ...]:
    """Label keys joined by commas."""
    words = tuple(word.strip() for word in text.split(","))
    try:
        parse_selector(",".join(words))
    except ValueError:
        raise WrongValue("label keys joined by commas, for example pool,topology.kubernetes.io/zone") from None
    return words


def choice(*words: str) -> Callable[[str], str]:
    """One of some words, in any case."""

    def read(text: str) -> str:
        if text.lower() in words:
            return text.lower()
        raise WrongValue(f"one of {', '.join(words)}")

    return read


def boolean(text: str) -> bool:
    """``true`` or ``false``."""
    if text not in ("true", "false"):
        raise WrongValue("true or false")
    return text == "true"


def file(text: str) -> str:
    """The path of a file that exists."""
    if not Path(text).is_file():
        raise WrongValue("the path of an existing file")
    return text


def path(text: str) -> str:
    """A path; what is there may come later."""
    if not text.startswith("/"):
        raise WrongValue("an absolute path")
    return text


def object_name(text: str) -> str:
    """The name of an object such as a Secret."""
    plain = text.replace("-", "").replace(".", "")
    if not (plain.isascii() and plain.isalnum() and text == text.lower() and text.strip("-.") == text):
        raise WrongValue("the name of an object: lower-case letters, digits, '-' and '.'")
    return text


def dns_name(text: str) -> str:
    """A DNS name."""
    labels = text.split(".")
    if len(text) > 253 or not all(label.replace("-", "").isalnum() and label.isascii() for label in labels):
        raise WrongValue("a DNS name such as gpudiag-agent.gpudiag-system.svc")
    return text.lower()


def name(text: str) -> str:
    """The name of a namespace."""
    plain = text.replace("-", "")
    if not (text.isascii() and plain.isalnum() and text == text.lower() and text.strip("-") == text and len(text) < 64):
        raise WrongValue("the name of a namespace: at most 63 lower-case letters, digits and '-'")
    return text
