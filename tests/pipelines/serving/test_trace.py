"""W3C trace context: continued when it is well formed, begun anew when it is not."""

from __future__ import annotations

import re

import pytest

from tests.pipelines.serving.asgi import JSON
from tests.pipelines.serving.conftest import Served, features

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
FORM = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")


def test_a_trace_is_continued_with_a_span_of_the_servers_own(linear: Served) -> None:
    answered = linear.infer(features(), [*JSON, ("traceparent", PARENT)]).headers["traceparent"]
    assert FORM.fullmatch(answered)
    assert answered.split("-")[1] == TRACE
    assert answered != PARENT
    assert linear.logged()[0]["trace"] == TRACE


def test_a_trace_that_is_not_sampled_stays_so(linear: Served) -> None:
    answered = linear.infer(features(), [*JSON, ("traceparent", PARENT[:-2] + "02")]).headers["traceparent"]
    assert answered.endswith("-00")


@pytest.mark.parametrize("parent", [PARENT.replace("00-", "cc-", 1), PARENT.replace("00-", "01-", 1) + "-what-comes"])
def test_a_later_version_is_read_as_far_as_this_one_goes(linear: Served, parent: str) -> None:
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


def test_two_parents_are_malformed(linear: Served) -> None:
    answer = linear.infer(features(), [*JSON, ("traceparent", PARENT), ("traceparent", PARENT)])
    assert TRACE not in answer.headers["traceparent"]


def test_a_request_without_trace_begins_one_that_no_other_has(linear: Served) -> None:
    begun = {linear.infer(features()).headers["traceparent"].split("-")[1] for _ in range(600)}
    assert len(begun) == 600


def test_the_state_is_passed_on_with_several_headers_joined(linear: Served) -> None:
    headers = [*JSON, ("traceparent", PARENT), ("tracestate", "congo=t61rcWkgMzE ,, rojo=1"), ("tracestate", "a@b=c d")]
    assert linear.infer(features(), headers).headers["tracestate"] == "congo=t61rcWkgMzE,rojo=1,a@b=c d"


@pytest.mark.parametrize(
    "state", ["novalue", "UPPER=1", "a=", "a=b=c", "a=1\x00", ",".join(f"k{i}=1" for i in range(33)), "k=" + "x" * 600]
)
def test_a_malformed_state_is_dropped_and_the_trace_kept(linear: Served, state: str) -> None:
    answer = linear.infer(features(), [*JSON, ("traceparent", PARENT), ("tracestate", state)])
    assert TRACE in answer.headers["traceparent"]
    assert "tracestate" not in answer.headers


def test_a_refusal_carries_the_trace_as_well(linear: Served) -> None:
    assert TRACE in linear.infer(b"{", [*JSON, ("traceparent", PARENT)]).headers["traceparent"]
