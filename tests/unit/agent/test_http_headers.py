"""Headers and parameters from anybody: hostile input gives the plain answer or a 400, never an error."""

from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.server import negotiation, query
from gpudiag_agent.server.problems import ProblemError


@given(st.lists(st.tuples(st.sampled_from(["wait", "fresh", "x"]) | st.text(max_size=80), st.text(max_size=80))))
def test_any_query_gives_a_question_or_a_short_400(pairs: list[tuple[str, str]]) -> None:
    try:
        asked = query.report_query(pairs)
    except ProblemError as problem:
        refused = problem
    else:
        assert 0 <= asked.wait <= query.LONGEST_WAIT
        return
    assert refused.status == 400
    assert len(refused.detail) < 900


@given(st.floats(min_value=0, max_value=60))
def test_every_wait_up_to_a_minute_is_taken(seconds: float) -> None:
    milliseconds = int(seconds * 1000)
    assert query.report_query([("wait", f"{milliseconds}ms")]).wait == milliseconds / 1000


@given(st.text(max_size=300))
def test_no_header_breaks_anything(header: str) -> None:
    negotiation.accepts_gzip(header)
    negotiation.matches(header, 'W/"abc"')
    negotiation.traceparent(header)
    safe = negotiation.request_id(header)
    assert 0 < len(safe) <= 128
    assert safe.isascii()
    assert safe.isprintable()


def test_gzip_is_used_only_where_it_is_allowed() -> None:
    wanted = ("gzip", "x-gzip", "GZIP;q=0.5", "deflate, gzip;q=1.0", "*", "br, *;q=0.1")
    refused = ("", "identity", "gzip;q=0", "gzip; q=0.000", "*;q=0", "br", "gzip;q=0, *")
    assert all(negotiation.accepts_gzip(header) for header in wanted)
    assert not any(negotiation.accepts_gzip(header) for header in refused)


def test_traceparent_is_echoed_only_when_valid() -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    assert negotiation.traceparent(f"00-{trace}-{span}-00") is not None
    for wrong in (f"ff-{trace}-{span}-00", f"00-{'0' * 32}-{span}-00", f"00-{trace}-{'0' * 16}-00", f"00-{trace}-00"):
        assert negotiation.traceparent(wrong) is None
