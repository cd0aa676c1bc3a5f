"""Logs: one object per line, with the context of the work that they are about."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from gpudiag_operator.observability import logs


@pytest.fixture
def root() -> Iterator[None]:
    """The root logger as it was, afterwards."""
    logger = logging.getLogger()
    before = logger.level, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.usefixtures("root")
class TestJSON:
    def test_a_record_is_one_line_with_time_level_logger_and_message(self) -> None:
        stream = io.StringIO()
        logs.configure(level="info", json=True, stream=stream)
        logging.getLogger("gpudiag_operator.x").info("two\nlines of %s", "text")
        (line,) = written(stream)
        assert line["level"] == "info"
        assert line["logger"] == "gpudiag_operator.x"
        assert line["message"] == "two\nlines of text"
        assert line["time"].endswith("Z")

    def test_what_is_bound_is_in_every_record_within_and_in_tasks_started_there(self) -> None:
        stream = io.StringIO()
        logs.configure(level="info", json=True, stream=stream)
        log = logging.getLogger("x")

        async def work() -> None:
            log.info("in a task", extra={"node": "n1", "thread_local": "not ours"})

        async def main() -> None:
            with logs.bound(runID="r1"), logs.bound(diagnostic="a/b"):
                task = asyncio.create_task(work())
            log.info("outside")
            await task

        asyncio.run(main())
        outside, inside = written(stream)
        assert "runID" not in outside
        assert (inside["runID"], inside["diagnostic"], inside["node"]) == ("r1", "a/b", "n1")
        assert "thread_local" not in inside
        assert logs.context() == {}

    def test_an_exception_is_a_field(self) -> None:
        stream = io.StringIO()
        logs.configure(level="info", json=True, stream=stream)
        try:
            int("no")
        except ValueError:
            logging.getLogger("x").exception("failed")
        (line,) = written(stream)
        assert "ValueError: invalid literal" in line["exception"]

    def test_libraries_are_quiet_unless_debugging(self) -> None:
        stream = io.StringIO()
        logs.configure(level="info", json=True, stream=stream)
        logging.getLogger("kopf.objects").info("handled")
        logging.getLogger("kopf._core.reactor.running").warning("OS signals are ignored: not the main thread")
        observing = logging.getLogger("kopf._core.reactor.observation")
        observing.error("Request attempt #1 failed; will retry: ClientConnectionError('Connector is closed.')")
        observing.error("Request attempt #2 failed; TCP closed; will re-authenticate: GET https://server/api")
        observing.error("will retry")
        assert [line["message"] for line in written(stream)] == ["will retry"]
        logs.configure(level="debug", json=True, stream=stream)
        logging.getLogger("kopf.objects").info("handled")
        assert written(stream)[-1]["message"] == "handled"


@pytest.mark.usefixtures("root")
def test_text_is_for_people() -> None:
    stream = io.StringIO()
    logs.configure(level="warning", json=False, stream=stream)
    logging.getLogger("x").info("not shown")
    with logs.bound(runID="r1"):
        try:
            int("no")
        except ValueError:
            logging.getLogger("x").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("ERROR   x: failed runID=r1")
    assert rest[-1].startswith("ValueError: ")
