"""The one exception of the embedded control plane: its text is shown to people as it is, so it says what to do."""

from collections.abc import Iterable
from pathlib import Path

OR_ASSETS = "set KUBEBUILDER_ASSETS to a folder that holds etcd, kube-apiserver, kube-controller-manager and kubectl"


class ControlPlaneError(Exception):
    """The control plane cannot be built, started or used; the message is complete sentences with a way out."""


def last_lines(log: Path, count: int = 20) -> list[str]:
    """The end of a log file: where a failed program says why (no lines where there is no file)."""
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    except OSError:
        return []


def with_lines(message: str, lines: Iterable[str]) -> str:
    """A message with what the program said last, indented below it."""
    quoted = "\n".join(f"    {line}" for line in lines)
    return f"{message}\n{quoted}" if quoted else message
