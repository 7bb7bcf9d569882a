"""Shadow traffic: live pods copy requests to a canary, which counts both sides and discards its answers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.shadow_traffic import ShadowPeers, ShadowTarget
from pipelines.serving import shadow_sender
from pipelines.serving.pod_counters import UnreadableMetricsError, read_metrics
from pipelines.serving.probe import UnavailableError
from pipelines.serving.request_error import RequestError
from pipelines.serving.request_metrics import RequestMetrics
from pipelines.serving.server_settings import ServerSettings
from pipelines.serving.shadow_beacon import serve_beacon
from pipelines.serving.shadow_counters import OriginalCounters
from pipelines.serving.shadow_protocol import ORIGINAL, SHADOW, SHADOW_PATH, TAKEN, AnswerFigures
from pipelines.serving.shadow_receiver import ShadowReceiver
from pipelines.serving.shadow_sender import MOST_BYTES, MOST_WAITING, ShadowSender
from tests.pipelines.serving.asgi import JSON, Response, ask
from tests.pipelines.serving.bundles import DIGEST, NAME, ROW, linear_bundle
from tests.pipelines.serving.conftest import Served, features, served

BODY = json.dumps(features()).encode()
LIVE = AnswerFigures(200, 0.004, 91.1)


@pytest.mark.parametrize(
    "figures",
    [LIVE, AnswerFigures(422, 1e-05, None), AnswerFigures(500, 0.0, -3.5e-120), AnswerFigures(200, 12.5, 1.7e308)],
)
def test_the_answer_of_a_live_pod_survives_the_header(figures: AnswerFigures) -> None:
    assert AnswerFigures.from_header(figures.to_header()) == figures


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"200",
        b"200 nan 1",
        b"200 -1 1",
        b"999 1 1",
        b"200 inf -",
        b"200 1 x",
        b"200 1 1 1",
        b"200 1 1\r\na: b",
        b"200 1e+999 1",
    ],
)
def test_another_header_is_refused(value: bytes) -> None:
    with pytest.raises(RequestError, match="live-answer: expected status, seconds and prediction"):
        AnswerFigures.from_header(value)


@given(st.integers(100, 599), st.floats(0, 1e9), st.none() | st.floats(allow_nan=False, allow_infinity=False))
def test_every_answer_survives_the_header(status: int, seconds: float, prediction: float | None) -> None:
    figures = AnswerFigures(status, seconds, prediction)
    assert AnswerFigures.from_header(figures.to_header()) == figures


@given(st.binary(max_size=60) | st.text("0123456789.e+- ", max_size=40).map(str.encode))
def test_any_header_is_read_or_refused(value: bytes) -> None:
    with suppress(RequestError):
        assert AnswerFigures.from_header(value).seconds >= 0


# The canary


@pytest.fixture
def canary() -> Any:
    """Return a served model that takes copies."""
    receiver = ShadowReceiver()
    made = served(linear_bundle(), receiver=receiver)
    made.metrics.add(receiver)
    yield made
    made.log.close()


def copy_to(pod: Served, body: bytes, live: AnswerFigures | None = LIVE) -> Response:
    """Send a copy of a request."""
    headers = [*JSON, *([("live-answer", live.to_header().decode())] if live is not None else [])]
    return ask(pod.application, "POST", SHADOW_PATH, body, headers)


def exposed(pod: Served) -> str:
    return pod.metrics.exposition()[1].decode()


def with_process(text: str) -> str:
    return text.replace('process=""', 'process="pod-1"')


def test_a_copy_is_answered_and_counted_on_both_sides(canary: Served) -> None:
    answer = copy_to(canary, BODY)
    assert (answer.status, answer.body) == (TAKEN, b"")
    assert copy_to(canary, b'{"inputs": []}', AnswerFigures(200, 0.001, 90.0)).status == TAKEN
    text = with_process(exposed(canary))
    process, ours = read_metrics(text, 0.02, SHADOW)
    _, theirs = read_metrics(text, 0.02, ORIGINAL)
    assert process == "pod-1"
    assert (ours.requests, ours.errors) == (2, 1), "it refuses what a live pod answered"
    assert (theirs.requests, theirs.errors) == (2, 0)
    assert ours.predictions.total == pytest.approx(ROW[0] + ROW[2])
    assert theirs.predictions.total == pytest.approx(91.1 + 90.0)
    assert theirs.latency.count == 2


def test_one_huge_prediction_leaves_the_figures_of_later_copies_exact(canary: Served) -> None:
    copy_to(canary, BODY, AnswerFigures(200, 0.004, 1.7e308))
    _, before = read_metrics(with_process(exposed(canary)), 0.02, ORIGINAL)
    for prediction in (90.0, 92.0):
        copy_to(canary, BODY, AnswerFigures(200, 0.004, prediction))
    _, after = read_metrics(with_process(exposed(canary)), 0.02, ORIGINAL)
    later = (after - before).predictions
    assert later.mean == pytest.approx(91.0, rel=1e-6) and later.variance == pytest.approx(2.0, rel=1e-3)


def test_no_metric_and_no_log_takes_a_copy_for_a_request_of_a_caller(canary: Served) -> None:
    before = read_metrics(with_process(exposed(canary)), 0.02)
    lines = [line for line in exposed(canary).splitlines() if "shadow" not in line and "original" not in line]
    for body in (BODY, b"{"):
        copy_to(canary, body)
    assert read_metrics(with_process(exposed(canary)), 0.02) == before
    after = [line for line in exposed(canary).splitlines() if "shadow" not in line and "original" not in line]
    assert [line for line in after if "python_" not in line] == [line for line in lines if "python_" not in line]
    assert canary.logged() == []
    assert not canary.written


def test_a_failure_of_the_canary_is_counted_and_not_logged(canary: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(canary.predictor, "answer", fail)
    assert copy_to(canary, BODY).status == TAKEN
    _, ours = read_metrics(with_process(exposed(canary)), 0.02, SHADOW)
    assert (ours.requests, ours.errors) == (1, 1)
    assert canary.logged() == []


def test_a_copy_without_the_answer_of_the_live_pod_is_refused(canary: Served) -> None:
    assert copy_to(canary, BODY, None).status == 400
    _, ours = read_metrics(with_process(exposed(canary)), 0.02, SHADOW)
    assert ours.requests == 0


def test_a_server_whose_model_declares_no_shadow_step_takes_no_copies(linear: Served) -> None:
    assert copy_to(linear, BODY).status == 404
    with pytest.raises(UnreadableMetricsError, match="expected counts of copied requests, found none"):
        read_metrics(with_process(exposed(linear)), 0.02, SHADOW)


def test_callers_reach_no_path_of_copies() -> None:
    """The load balancer routes `/v2` only."""
    assert not SHADOW_PATH.startswith("/v2")


def test_both_sides_come_from_the_same_readings(canary: Served) -> None:
    readings: list[str] = []
    live = OriginalCounters(readings, 0.02)
    for _ in range(3):
        copy_to(canary, BODY)
        readings.append(with_process(exposed(canary)))
        live.look()
    assert live.totals.requests == 2, "what came before the first look does not count"
    assert not readings


# The live pod


class Peer:
    """A server on 127.0.0.1 that records requests.

    Attributes:
        asked: head and body of each request.
        answer: bytes to answer with; b"" to answer nothing.
    """

    def __init__(self, answer: bytes) -> None:
        self.asked: list[tuple[bytes, bytes]] = []
        self.answer = answer
        self.connections = 0
        self.port = 0
        self.changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                self.asked.append((head, await reader.readexactly(length)))
                self.changed.set()
                if self.answer:
                    writer.write(self.answer)
                if b"HTTP/1.0" in head:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def until(self, number: int) -> None:
        """Wait until it was asked a number of times."""
        async with asyncio.timeout(20):
            while len(self.asked) < number:
                self.changed.clear()
                await self.changed.wait()


TAKE = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


def beacon_answer(content: str) -> bytes:
    return b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + content.encode()


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[Peer]:
    peer = Peer(answer)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()


ON = beacon_answer('{"canary": "pong", "percent": 50}')
Play = Callable[[ShadowSender, Peer, Peer], Awaitable[None]]


def play(scene: Play, *, beacon: bytes = ON, take: bytes = TAKE, chance: Callable[[], float] = lambda: 0.0) -> None:
    """Run a scene with a sender, the beacon and a canary behind `pong`."""

    async def run() -> None:
        async with listening(beacon) as told, listening(take) as canary:
            url = "http://127.0.0.1:{}".format
            peers = ShadowPeers(beacon=url(told.port), ping="http://127.0.0.1:1", pong=url(canary.port))
            sender = ShadowSender(peers, chance=chance)
            await scene(sender, told, canary)
            sender._stop()
            await settle()

    run_as_served(run)


def run_as_served(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run in an event loop of the server's kind."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


async def settle() -> None:
    """Let callbacks run that are due."""
    for _ in range(5):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def counts(sender: ShadowSender) -> dict[str, float]:
    (family,) = sender.collect()
    return {sample.labels["result"]: sample.value for sample in family.samples if sample.name.endswith("_total")}


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_pod_copies_what_it_answered_to_the_service_that_the_beacon_names() -> None:
    async def scene(sender: ShadowSender, told: Peer, canary: Peer) -> None:
        await sender.renew()
        assert sender.is_on
        for number in range(3):
            sender.offer(b"body %d" % number, LIVE)
        await canary.until(3)
        await until(lambda: counts(sender)["sent"] == 3)
        heads = [head for head, _ in canary.asked]
        assert [body for _, body in canary.asked] == [b"body 0", b"body 1", b"body 2"]
        assert all(head.startswith(b"POST /shadow/infer HTTP/1.1\r\n") for head in heads)
        assert b"\r\nlive-answer: 200 0.004 91.1\r\n" in heads[0]
        assert b"\r\nhost: 127.0.0.1:%d\r\n" % canary.port in heads[0]
        assert canary.connections == 1

    play(scene)


def test_only_the_share_that_the_beacon_names_is_copied() -> None:
    drawn = iter([0.49, 0.5, 0.99, 0.0])

    async def scene(sender: ShadowSender, told: Peer, canary: Peer) -> None:
        await sender.renew()
        for number in range(4):
            sender.offer(b"%d" % number, LIVE)
        await canary.until(2)
        await until(lambda: counts(sender)["sent"] == 2)
        assert [body for _, body in canary.asked] == [b"0", b"3"]

    play(scene, chance=lambda: next(drawn))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        beacon_answer(""),
        beacon_answer("{"),
        beacon_answer('{"canary": "root", "percent": 10}'),
        beacon_answer('{"canary": "http://elsewhere", "percent": 10}'),
        beacon_answer('{"canary": "pong", "percent": 51}'),
        beacon_answer('{"canary": "pong", "percent": 0}'),
        beacon_answer(" " * 5000 + '{"canary": "pong", "percent": 10}'),
        b"nonsense\r\n\r\n",
    ],
)
def test_another_answer_of_the_beacon_copies_nothing(answer: bytes) -> None:
    async def scene(sender: ShadowSender, told: Peer, canary: Peer) -> None:
        await sender.renew()
        assert sender.is_on
        told.answer = answer
        await sender.renew()
        assert not sender.is_on
        assert canary.asked == []

    play(scene)


def test_copying_ends_with_the_step() -> None:
    async def scene(sender: ShadowSender, told: Peer, canary: Peer) -> None:
        await sender.renew()
        sender.offer(b"first", LIVE)
        await canary.until(1)
        told.answer = b"HTTP/1.1 503 -\r\n\r\n"
        await sender.renew()
        assert not sender.is_on
        await settle()
        assert sender._connection is None
        told.answer = ON
        await sender.renew()
        sender.offer(b"second", LIVE)
        await canary.until(2)
        assert sender.is_on

    play(scene)


def test_without_a_step_the_connection_is_refused() -> None:
    async def run() -> None:
        sender = ShadowSender(
            ShadowPeers(beacon="http://127.0.0.1:1", ping="http://127.0.0.1:1", pong="http://127.0.0.1:1")
        )
        sender.is_on = True  # as in a step that has just ended
        await sender.renew()
        assert not sender.is_on

    run_as_served(run)


def test_what_waits_for_a_slow_canary_is_bounded_and_the_rest_is_counted() -> None:
    async def scene(sender: ShadowSender, told: Peer, canary: Peer) -> None:
        await sender.renew()
        for number in range(MOST_WAITING + 11):
            sender.offer(b"%d" % number, LIVE)
        await canary.until(1)
        assert counts(sender) == {"sent": 0, "failed": 0, "dropped": 11}
        sender._waiting.clear()
        sender._bytes = 0
        half = b"x" * (MOST_BYTES // 2)
        for _ in range(3):
            sender.offer(half, LIVE)
        assert counts(sender)["dropped"] == 13

    play(scene, take=b"")


def test_a_copy_without_an_answer_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(sender: ShadowSender, told: Peer, canary: Peer) -> None:
        await sender.renew()
        sender.offer(b"hangs", LIVE)
        sender.offer(b"waits", LIVE)
        await canary.until(1)
        await sender.renew()
        assert counts(sender)["failed"] == 0, "it still has time"
        assert sender._sent_at is not None
        sender._sent_at -= shadow_sender.TIMEOUT_SECONDS + 1
        canary.answer = TAKE
        await sender.renew()
        await canary.until(2)
        await until(lambda: counts(sender)["sent"] == 1)
        assert counts(sender) == {"sent": 1, "failed": 1, "dropped": 0}

    play(scene, take=b"")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}", b"not HTTP\r\n\r\n"])
def test_a_canary_that_does_not_take_copies_is_counted(answer: bytes) -> None:
    async def scene(sender: ShadowSender, told: Peer, canary: Peer) -> None:
        await sender.renew()
        sender.offer(b"body", LIVE)
        await until(lambda: counts(sender)["failed"] == 1)
        assert counts(sender)["sent"] == 0

    play(scene, take=answer)


def test_each_lease_takes_another_connection_so_that_copies_spread_over_pods() -> None:
    async def scene(sender: ShadowSender, told: Peer, canary: Peer) -> None:
        for number in range(3):
            await sender.renew()
            sender.offer(b"body", LIVE)
            await until(lambda wanted=number + 1: counts(sender)["sent"] == wanted)  # type: ignore[misc]
        assert canary.connections == 3
        assert counts(sender)["failed"] == 0

    play(scene)


def test_a_proxy_gets_the_whole_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    route = shadow_sender.route_to("http://price-shadow.models.svc")
    assert route == ("127.0.0.1", 3128, b"http://price-shadow.models.svc", b"price-shadow.models.svc")
    monkeypatch.setenv("no_proxy", "price-shadow.models.svc")
    assert shadow_sender.route_to("http://price-shadow.models.svc")[:3] == ("price-shadow.models.svc", 80, b"")


class Recorder(ShadowSender):
    """Records what is offered."""

    def __init__(self) -> None:
        none = "http://127.0.0.1:1"
        super().__init__(ShadowPeers(beacon=none, ping=none, pong=none))
        self.offered: list[tuple[bytes, AnswerFigures]] = []

    def offer(self, body: bytes, answer: AnswerFigures) -> None:
        self.offered.append((body, answer))


def test_a_server_offers_what_it_answered_while_a_step_is_running() -> None:
    sender = Recorder()
    pod = served(linear_bundle(), sender=sender)
    assert pod.infer(BODY).status == 200
    assert sender.offered == [], "no step is running"
    sender.is_on = True
    assert pod.infer(BODY).status == 200
    assert pod.infer(b'{"inputs": []}').status == 400
    pod.infer(BODY, path=f"/v2/models/{NAME}/versions/{pod.bundle.digest}/infer")
    pod.infer(BODY, headers=[("content-type", "text/plain")])
    pod.infer([b"{", None])
    assert pod.infer([b"x" * (1 << 20), b"x"]).status == 413
    pod.log.close()
    (first, answered), (second, refused) = sender.offered
    assert (first, second) == (BODY, b'{"inputs": []}'), "not what names a version, or has no whole body"
    assert answered.status == 200 and answered.prediction == pytest.approx(91.1)
    assert 0 < answered.seconds < 10
    assert (refused.status, refused.prediction) == (400, None)


# The beacon, and settings


def test_the_beacon_tells_live_pods_as_long_as_the_check_runs() -> None:
    async def run() -> None:
        with serve_beacon(ShadowTarget(canary="ping", percent=10), "127.0.0.1", 0) as port:
            sender = ShadowSender(
                ShadowPeers(beacon=f"http://127.0.0.1:{port}", ping="http://127.0.0.1:1", pong="http://127.0.0.1:1")
            )
            await sender.renew()
            assert sender.is_on
        await sender.renew()
        assert not sender.is_on

    run_as_served(run)


def test_a_beacon_that_cannot_listen_is_inconclusive() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(UnavailableError, match=f"cannot listen on 127.0.0.1 port {port}"),
            serve_beacon(ShadowTarget(canary="ping", percent=10), "127.0.0.1", port),
        ):
            pass


def test_a_server_reads_its_peers_from_a_variable() -> None:
    peers = ShadowPeers(beacon="http://a.b.svc", ping="http://c.b.svc", pong="http://d.b.svc:8080")
    settings = ServerSettings.from_environ(NAME, DIGEST, {"SHADOW_PEERS": peers.model_dump_json()})
    assert settings.shadow_peers == peers
    assert ServerSettings.from_environ(NAME, DIGEST, {}).shadow_peers is None
    for wrong in ("{", '{"beacon": "http://a"}', peers.model_dump_json().replace("http://a", "ftp://a")):
        with pytest.raises(MlopsError, match="SHADOW_PEERS: expected the Services of a shadow step as JSON"):
            ServerSettings.from_environ(NAME, DIGEST, {"SHADOW_PEERS": wrong})


def test_a_pod_that_can_copy_says_so_in_its_metrics() -> None:
    metrics = RequestMetrics(NAME, DIGEST)
    assert "inference_shadow_copies_total" not in metrics.exposition()[1].decode()
    metrics.add(Recorder())
    assert 'inference_shadow_copies_total{result="dropped"} 0.0' in metrics.exposition()[1].decode()
