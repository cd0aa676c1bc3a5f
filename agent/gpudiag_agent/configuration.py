"""The thresholds file: read at start, watched while the agent runs.

YAML, or JSON by the suffix ``.json``; what it leaves out keeps its default (see :mod:`gpudiag_agent.thresholds`). At
start a wrong file is refused with a sentence that names the field. Later a wrong one changes nothing: the limits in
force stay, the reason is logged once and ``gpudiag_agent_config_last_reload_successful`` is 0. It never moves health.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from gpudiag_agent.clock import Clock
from gpudiag_agent.thresholds import Thresholds

_log = logging.getLogger(__name__)

WATCH_PERIOD = 5.0
"""Seconds between two looks at the file. The kubelet takes up to a minute to bring a changed ConfigMap."""
MAX_BYTES = 256 * 1024
"""A file of thresholds is a few lines; a ConfigMap holds at most 1 MiB."""


class ConfigurationError(Exception):
    """A file that cannot be used; the message names it, the field, and what is allowed."""


class Configuration:
    """The limits in force.

    Args:
        path: the file; None: the defaults, for ever.
        clock: for waits.
        on_change: called after another file was read, used or not.

    Raises:
        ConfigurationError: the file cannot be used.
    """

    def __init__(self, path: Path | None, *, clock: Clock, on_change: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._clock = clock
        self._on_change = on_change
        self._stamp = _stamp(path) if path is not None else None
        self._thresholds = load(path) if path is not None else Thresholds()
        self.problem: str | None = None
        """Why the file as it is now is not used; None: it is."""

    def thresholds(self) -> Thresholds:
        """The limits in force."""
        return self._thresholds

    async def watch(self) -> None:
        """Look at the file every few seconds until cancelled."""
        while True:
            await self._clock.sleep(WATCH_PERIOD)
            self.reload()

    def reload(self) -> None:
        """Read the file again if it is another one. A ConfigMap changes by a link, hence the inode."""
        if self._path is None or (stamp := _stamp(self._path)) == self._stamp:
            return
        self._stamp = stamp
        try:
            thresholds = load(self._path)
        except ConfigurationError as error:
            self.problem = str(error)
            _log.error("the changed thresholds are not used, those before stay in force", extra={"reason": str(error)})
        else:
            self.problem, self._thresholds = None, thresholds
            _log.info("thresholds read again", extra={"path": str(self._path)})
        self._on_change()


def load(path: Path) -> Thresholds:
    """Read a thresholds file; an empty one gives the defaults.

    Raises:
        ConfigurationError: it cannot be read, or says something that thresholds cannot.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise ConfigurationError(f"{path}: larger than {MAX_BYTES // 1024} KiB, which no file of thresholds is")
    try:
        return msgspec.convert(_document(raw, json=path.suffix == ".json"), Thresholds)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {_explain(str(error))}") from error
    except ValueError as error:
        words = " ".join(str(error).split())
        raise ConfigurationError(f"{path}: not {'JSON' if path.suffix == '.json' else 'YAML'}: {words}") from error


def _document(raw: bytes, *, json: bool) -> object:
    if not raw.strip():
        return {}
    if json:
        return msgspec.json.decode(raw)
    import yaml  # noqa: PLC0415 - its memory is for those who configure in YAML

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(raw, loader)  # noqa: S506 - both are safe loaders
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error) or "nested too deeply") from error
    return {} if document is None else document


def _explain(problem: str) -> str:
    """``$.pcieErrors.replaysPerMinute: Expected `int` >= 0``: the place first, and the names that exist there."""
    words, _, place = problem.rpartition(" - at ")
    place = place.strip("`") if words else "$"
    words = words or problem
    if "unknown field" in words:
        words += f"; allowed: {', '.join(_names_at(place))}"
    return f"{place}: {words}"


def _names_at(place: str) -> list[str]:
    kind: type[msgspec.Struct] = Thresholds
    for step in place.split(".")[1:]:
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.encode_name == step)
    return sorted(field.encode_name for field in msgspec.structs.fields(kind))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
