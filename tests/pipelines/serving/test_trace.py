"""W3C Trace Context: a valid trace is continued, a malformed one replaced."""

from __future__ import annotations

import re

import pytest

from tests.pipelines.serving.asgi import JSON
from tests.pipelines.serving.conftest import Served, features

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
FORM = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")


def test_a_trace_is_continued_with_a_new_span(linear: Served) -> None:
    answered = linear.infer(features(), [*JSON, ("traceparent", PARENT)]).headers["traceparent"]
    assert FORM.fullmatch(answered)
    assert answered.split("-")[1] == TRACE
    assert answered != PARENT
    assert linear.logged()[0]["trace"] == TRACE


def test_a_trace_that_is_not_sampled_stays_unsampled(linear: Served) -> None:
    answered = linear.infer(features(), [*JSON, ("traceparent", PARENT[:-2] + "02")]).headers["traceparent"]
    assert answered.endswith("-00")


@pytest.mark.parametrize("parent", [PARENT.replace("00-", "cc-", 1), PARENT.replace("00-", "01-", 1) + "-what-comes"])
def test_a_later_version_of_the_header_is_read_as_the_current_one(linear: Served, parent: str) -> None:
    assert TRACE in linear.infer(features(), [*JSON, ("traceparent", parent)]).headers["traceparent"]


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "garbage",
        PARENT[:-1],
        PARENT + "-extra",
        PARENT.upper(),
        PARENT.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}x-b7ad6b7169203331-01",
        " " + PARENT,
    ],
)
def test_a_malformed_trace_is_replaced_by_a_new_one_and_its_state_dropped(linear: Served, parent: str) -> None:
    answer = linear.infer(features(), [*JSON, ("traceparent", parent), ("tracestate", "a=1")])
    assert answer.status == 200
    assert FORM.fullmatch(answer.headers["traceparent"])
    assert TRACE not in answer.headers["traceparent"]
    assert "tracestate" not in answer.headers


def test_two_parent_headers_are_malformed(linear: Served) -> None:
    answer = linear.infer(features(), [*JSON, ("traceparent", PARENT), ("traceparent", PARENT)])
    assert TRACE not in answer.headers["traceparent"]


def test_a_request_without_a_trace_starts_a_unique_one(linear: Served) -> None:
    begun = {linear.infer(features()).headers["traceparent"].split("-")[1] for _ in range(600)}
    assert len(begun) == 600


def test_several_state_headers_are_joined_and_passed_on(linear: Served) -> None:
    headers = [*JSON, ("traceparent", PARENT), ("tracestate", "congo=t61rcWkgMzE ,, rojo=1"), ("tracestate", "a@b=c d")]
    assert linear.infer(features(), headers).headers["tracestate"] == "congo=t61rcWkgMzE,rojo=1,a@b=c d"


@pytest.mark.parametrize(
    "state", ["novalue", "UPPER=1", "a=", "a=b=c", "a=1\x00", ",".join(f"k{i}=1" for i in range(33)), "k=" + "x" * 600]
)
def test_a_malformed_state_is_dropped_and_the_trace_kept(linear: Served, state: str) -> None:
    answer = linear.infer(features(), [*JSON, ("traceparent", PARENT), ("tracestate", state)])
    assert TRACE in answer.headers["traceparent"]
    assert "tracestate" not in answer.headers


def test_an_error_response_carries_the_trace(linear: Served) -> None:
    assert TRACE in linear.infer(b"{", [*JSON, ("traceparent", PARENT)]).headers["traceparent"]
