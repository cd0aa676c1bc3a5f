"""For every test: coverage looks away where it costs a multiple of the test and would learn nothing."""

from collections.abc import Generator

import coverage
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run tests marked ``untraced``, and those of hypothesis, without coverage.

    They go through the same lines hundreds of times, which other tests go through too; traced they take up to five
    times as long.
    """
    tracing = coverage.Coverage.current()
    repeats = item.get_closest_marker("untraced") or getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    if tracing is None or not repeats:
        return (yield)
    tracing.stop()
    try:
        return (yield)
    finally:
        tracing.start()
