"""The average number of requests in flight, by which an autoscaler adds pods."""

from __future__ import annotations

import asyncio
import re
from math import exp
from time import perf_counter

import pytest

from pipelines.serving.request_concurrency import AVERAGED_SECONDS, RequestConcurrency
from tests.pipelines.serving.conftest import Serve
from tests.pipelines.serving.test_immediate_answers import Server, read, request, run


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


async def turn(concurrency: RequestConcurrency, time: Time, answers: int, seconds: float) -> None:
    """Answer requests in one turn of the event loop."""
    start = time.now
    for _ in range(answers):
        concurrency.answered(start)
    time.now += seconds
    await asyncio.sleep(0)


def test_requests_that_wait_for_each_other_count_for_as_long_as_all_take(time: Time) -> None:
    async def main() -> None:
        concurrency = RequestConcurrency(time)
        for _ in range(100):
            await turn(concurrency, time, answers=8, seconds=1.0)
        assert concurrency.average() == pytest.approx(8, rel=0.01)
        time.now += AVERAGED_SECONDS
        assert concurrency.average() == pytest.approx(8 * exp(-1), rel=0.01)

    asyncio.run(main())


def test_a_server_that_is_busy_a_tenth_of_the_time_has_a_tenth_of_a_request_in_flight(time: Time) -> None:
    async def main() -> None:
        concurrency = RequestConcurrency(time)
        for _ in range(10_000):
            await turn(concurrency, time, answers=1, seconds=0.01)
            time.now += 0.09
        assert concurrency.average() == pytest.approx(0.1, rel=0.02)

    asyncio.run(main())


def test_a_request_whose_body_was_awaited_counts_no_time_twice(time: Time) -> None:
    async def main() -> None:
        concurrency = RequestConcurrency(time)
        begun = time.now
        await turn(concurrency, time, answers=1, seconds=5.0)
        time.now += 5.0
        concurrency.answered(begun)
        await asyncio.sleep(0)
        assert concurrency.average() == pytest.approx(1 - exp(-10 / AVERAGED_SECONDS))

    asyncio.run(main())


def test_a_server_counts_the_requests_that_wait_in_its_connections(serve: Serve) -> None:
    """Each connection waits for its answer, so a server that counts what it has begun sees one request at most."""
    served = serve()
    turns: list[int] = []
    concurrency = served.metrics.concurrency = RequestConcurrency(lambda: perf_counter() + sum(turns))
    end_turn = concurrency.end_turn

    async def test(server: Server) -> None:
        connections = [await server.connect() for _ in range(6)]

        def end() -> None:
            turns.append(concurrency._answers)  # as if each answer took a second
            end_turn()

        concurrency.end_turn = end  # type: ignore[method-assign]
        for _, writer in connections:
            writer.write(request())
        for reader, writer in connections:
            assert (await read(reader))[0] == b"HTTP/1.1 200 OK"
            writer.close()

    run(served.application, test)
    assert sum(turns) == 6
    assert max(turns) > 1
    figures = served.metrics.exposition()[1].decode()
    (found,) = re.findall(r"^inference_requests_in_flight (.+)$", figures, re.MULTILINE)
    assert float(found) == pytest.approx(concurrency.average(), abs=0.1)
    assert float(found) > 0.5
