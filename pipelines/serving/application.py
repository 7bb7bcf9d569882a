"""The ASGI application: routes, request handling and the server's state."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Any

import msgspec

from pipelines.serving.inference_log import InferenceLog
from pipelines.serving.predictor import SHORT_DIGITS, InferenceResult, Predictor
from pipelines.serving.request_error import Header, RequestError
from pipelines.serving.request_metrics import ABANDONED, OVERLOADED, RequestMetrics
from pipelines.serving.shadow_protocol import LIVE_ANSWER, SHADOW_PATH, TAKEN, AnswerFigures
from pipelines.serving.shadow_receiver import ShadowReceiver
from pipelines.serving.shadow_sender import ShadowSender
from pipelines.serving.trace import TRACE, TRACE_AND_SPAN, Trace, continue_trace, new_parent

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LARGEST_BODY = 1 << 20
"""Default size limit of a request body, in bytes."""

BODY_SECONDS = 10.0
"""Time allowed for the rest of a request body to arrive."""

MOST_WAITING = 64
"""Maximum number of pending request bodies. Bounds the memory that slow clients can occupy.

A further one takes the place of the one that is pending longest. Otherwise, slow clients could keep all others out.
"""

_NOT_JSON = 415
_JSON = (b"content-type", b"application/json")
_CLOSE = (b"connection", b"close")
_RETRY = (b"retry-after", b"1")


class Application:
    """Serves one bundle. Ready from `serve` until `drain`.

    Args:
        model: the model's name.
        bundle: digest of the bundle.
        metrics: counts requests.
        largest_body: limit of a request body, in bytes.
        body_seconds: seconds allowed for the rest of a body to arrive.
        sender: copies requests to a canary; None if the model declares no shadow step.
        receiver: counts the copies that this server takes as a canary; None to take none.

    Attributes:
        at_once: URLs whose POST requests `answer_at_once` may answer now.
    """

    def __init__(
        self,
        model: str,
        bundle: str,
        metrics: RequestMetrics,
        *,
        largest_body: int = LARGEST_BODY,
        body_seconds: float = BODY_SECONDS,
        sender: ShadowSender | None = None,
        receiver: ShadowReceiver | None = None,
    ) -> None:
        self._name = model
        self._metrics = metrics
        self._largest_body = largest_body
        self._body_seconds = body_seconds
        self._sender = sender
        self._receiver = receiver
        self._pending: dict[asyncio.Timeout, None] = {}  # time limits of the pending bodies, the oldest first
        self._predictor: Predictor | None = None
        self._log: InferenceLog | None = None
        self._draining = False
        self._fixed: tuple[Header, ...] = (_JSON,)
        digits = bundle.removeprefix("sha256:")
        self._versions = (bundle, digits, digits[:SHORT_DIGITS])
        roots = (f"/v2/models/{model}", *(f"/v2/models/{model}/versions/{name}" for name in self._versions))
        self._common_path = f"{roots[0]}/infer"
        self._common_url = self._common_path.encode()
        self._infer_paths = frozenset(f"{root}/infer" for root in roots)
        self.at_once: frozenset[bytes] = frozenset()
        self._gets: dict[str, Callable[[], tuple[int, Any]]] = {
            "/v2": self._server,
            "/v2/health/live": lambda: (200, {"live": True}),
            "/v2/health/ready": lambda: (self._readiness(), {"ready": self.is_ready}),
        }
        for root in roots:
            self._gets[root] = self._metadata
            self._gets[f"{root}/ready"] = lambda: (self._readiness(), {"name": model, "ready": self.is_ready})

    @property
    def is_ready(self) -> bool:
        """True while the server takes new requests."""
        return self._predictor is not None and not self._draining

    def serve(self, predictor: Predictor, log: InferenceLog) -> None:
        """Start taking requests."""
        self._predictor = predictor
        self._log = log
        self._metrics.is_ready = True
        self._metrics.predictions.expect(predictor.largest_counted, predictor.prediction_edges)
        if self._receiver is not None:
            self._receiver.expect_predictions(predictor.largest_counted, predictor.prediction_edges)
        self.at_once = frozenset(path.encode() for path in self._infer_paths)

    def drain(self) -> None:
        """Report the server as not ready. Requests are still answered, with `Connection: close`."""
        self._draining = True
        self.at_once = frozenset()
        self._fixed = (_JSON, _CLOSE)
        self._metrics.is_ready = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one HTTP request of the ASGI protocol."""
        if scope["path"] not in self._infer_paths or scope["method"] != "POST":
            await self._answer_other(scope, receive, send)
            return
        start = perf_counter()
        metrics = self._metrics
        metrics.in_flight += 1
        is_versioned = scope["path"] != self._common_path
        status, body = ABANDONED, b""
        more: tuple[Header, ...] = ()
        try:
            pairs = scope["headers"]
            headers = dict(pairs)
            parent, state = (new_parent(), b"") if b"traceparent" not in headers else _trace_of(pairs)
            answer = None
            try:
                predictor = self._predictor_for(headers)
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                first = message.get("body", b"")
                if message.get("more_body") or len(first) > self._largest_body:
                    whole = await self._whole_body(first, headers, message, receive)
                    if whole is None:
                        return
                    first = whole
                body = first
                answer = predictor.answer(body, parent[TRACE_AND_SPAN])
                status, content = 200, answer.body
            except Exception as error:
                status, content, more = self._failure(error, parent)
            sent = [*self._fixed, (b"content-length", b"%d" % len(content)), (b"traceparent", parent), *more]
            if state:
                sent.append((b"tracestate", state))
            await send({"type": "http.response.start", "status": status, "headers": sent})
            await send({"type": "http.response.body", "body": content})
            self._record(status, answer, parent, body, start, is_versioned=is_versioned)
        finally:
            metrics.in_flight -= 1
            metrics.answered(status, perf_counter() - start, is_versioned=is_versioned)
            metrics.concurrency.answered(start)

    def answer_at_once(self, url: bytes, headers: dict[bytes, bytes], body: bytes) -> tuple[int, bytes] | None:
        """Answer an inference request that arrived as a whole, without the steps of the ASGI protocol.

        Those steps, such as a task for each request, take longer than the answer of a small model.

        Args:
            url: one of `at_once`.
            headers: headers of the request; each occurs once.
            body: body of the request.

        Returns:
            The status, and the response after its status line. None if the body is too large: call the application.
        """
        if len(body) > self._largest_body:
            return None
        start = perf_counter()
        parent, state = (new_parent(), b"") if b"traceparent" not in headers else _trace_of(list(headers.items()))
        answer, more = None, b""
        try:
            answer = self._predictor_for(headers).answer(body, parent[TRACE_AND_SPAN])
            status, content = 200, answer.body
        except Exception as error:
            status, content, others = self._failure(error, parent)
            more = b"".join(b"%b: %b\r\n" % header for header in others)
        if state:
            more += b"tracestate: %b\r\n" % state
        response = b"content-type: application/json\r\ncontent-length: %d\r\ntraceparent: %b\r\n%b\r\n%b" % (
            len(content),
            parent,
            more,
            content,
        )
        is_versioned = url != self._common_url
        self._metrics.answered(status, perf_counter() - start, is_versioned=is_versioned)
        self._metrics.concurrency.answered(start)
        self._record(status, answer, parent, body, start, is_versioned=is_versioned)
        return status, response

    def _predictor_for(self, headers: dict[bytes, bytes]) -> Predictor:
        """Return the predictor if the request may be answered, by its headers.

        Raises:
            RequestError: 503: the model is being loaded. 415: the body is not plain JSON.
        """
        predictor = self._predictor
        if predictor is None:
            raise RequestError(503, "the model is being loaded", (_RETRY,))
        if (
            headers.get(b"content-type") != b"application/json"
            or b"content-encoding" in headers
            or b"inference-header-content-length" in headers
        ):
            _check_content(headers)
        return predictor

    def _failure(self, error: Exception, parent: bytes) -> tuple[int, bytes, tuple[Header, ...]]:
        """Return status, body and further headers of the response to a request that failed."""
        if isinstance(error, RequestError):
            return error.status, _error(error.message), error.headers
        return 500, _unexpected(parent, quotes=self._log is None or not self._log.withholds), ()

    def _record(
        self,
        status: int,
        answer: InferenceResult | None,
        parent: bytes,
        body: bytes,
        start: float,
        *,
        is_versioned: bool,
    ) -> None:
        """Count and log an inference request that has its response, and offer it to a canary.

        Args:
            status: status of its response.
            answer: the answer; None if it failed.
            parent: `traceparent` of the response.
            body: body of the request; b"" if it did not arrive as a whole.
            start: when its headers were read.
            is_versioned: True if the request names a version.
        """
        log = self._log
        if answer is not None:
            self._metrics.rows += answer.rows
            if answer.prediction is not None and not is_versioned:
                self._metrics.predictions.add(answer.prediction)
            log.record(answer, parent[TRACE])  # type: ignore[union-attr]
        elif status >= 500 and status != OVERLOADED and log is not None:
            log.record_failure(status, parent[TRACE])
        sender = self._sender
        # Without a whole body, or with one that is not JSON by its headers, the canary would answer something else.
        if sender is not None and sender.is_on and not is_versioned and body and status != _NOT_JSON:
            prediction = None if answer is None else answer.prediction
            sender.offer(body, AnswerFigures(status, perf_counter() - start, prediction))

    async def _whole_body(
        self, first: bytes, headers: dict[bytes, bytes], message: Message, receive: Receive
    ) -> bytes | None:
        """Receive a body that did not arrive with its headers; None if the client disconnects.

        Raises:
            RequestError: 413: the body is too large. 408: it did not arrive in time.
        """
        limit = self._largest_body
        too_large = f"the body is too large: expected at most {limit} bytes"
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > limit:
            raise RequestError(413, f"{too_large}, found {int(length[:20])}")
        if len(self._pending) >= MOST_WAITING:
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())
        pieces, size = [first], len(first)
        left = asyncio.timeout(self._body_seconds)
        try:
            async with left:
                self._pending[left] = None
                while size <= limit and message.get("more_body"):
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
        except TimeoutError:
            when = f"within {self._body_seconds:g} s"
            if left not in self._pending:
                when = f"before {MOST_WAITING} others began to"
            raise RequestError(408, f"the body did not arrive {when}", (_CLOSE,)) from None
        finally:
            self._pending.pop(left, None)
        if size > limit:
            raise RequestError(413, too_large, (_CLOSE,))
        return b"".join(pieces)

    async def _take_copy(self, scope: Message, receive: Receive) -> int:
        """Answer a copy of a request, count both sides and discard the answer; return the status of the response.

        Raises:
            RequestError: it is not a copy, or cannot be answered now.
        """
        start = perf_counter()
        predictor, receiver = self._predictor, self._receiver
        if predictor is None or receiver is None:
            raise RequestError(503, "the model is being loaded", (_RETRY,))
        headers = dict(scope["headers"])
        live = AnswerFigures.from_header(headers.get(LIVE_ANSWER, b""))
        message: Message = {"more_body": True}
        body = await self._whole_body(b"", headers, message, receive)
        if body is None:
            return ABANDONED
        parent, prediction = new_parent(), None
        try:
            prediction = predictor.answer(body, parent[TRACE_AND_SPAN]).prediction
            status = 200
        except Exception as error:
            status, _, _ = self._failure(error, parent)
        receiver.compared(AnswerFigures(status, perf_counter() - start, prediction), live)
        return TAKEN

    async def _answer_other(self, scope: Message, receive: Receive, send: Send) -> None:
        headers: tuple[Header, ...] = ()
        content_type: tuple[Header, ...] = self._fixed
        try:
            path, method = scope["path"].rstrip("/"), scope["method"]
            if path == SHADOW_PATH and method == "POST" and self._receiver is not None:
                status, content = await self._take_copy(scope, receive), b""
            elif path == "/metrics" and method in ("GET", "HEAD"):
                kind, content = self._metrics.exposition()
                status = 200
                content_type = ((b"content-type", kind.encode()), *self._fixed[1:])
            else:
                status, value = self._route(path, method)
                content = msgspec.json.encode(value)
                headers = (_RETRY,) if status == 503 else ()
        except RequestError as error:
            status, content, headers = error.status, _error(error.message), error.headers
        except Exception:
            status, content = 500, _unexpected(new_parent())
        sent = [*content_type, (b"content-length", b"%d" % len(content)), *headers]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": content})

    def _route(self, path: str, method: str) -> tuple[int, Any]:
        get = self._gets.get(path)
        if get is not None:
            if method not in ("GET", "HEAD"):
                raise RequestError(405, f"expected GET, found {method}", ((b"allow", b"GET, HEAD"),))
            return get()
        if path == "/metrics":
            raise RequestError(405, f"expected GET, found {method}", ((b"allow", b"GET, HEAD"),))
        if path in self._infer_paths and method == "POST":
            raise RequestError(404, "unknown path; remove the slash after infer")
        if path in self._infer_paths:
            raise RequestError(405, f"expected POST, found {method}", ((b"allow", b"POST"),))
        raise RequestError(404, self._why_unknown(path))

    def _why_unknown(self, path: str) -> str:
        match path.split("/")[1:]:
            case ["v2", "models", name, *_] if name != self._name:
                return f"unknown model {name[:80]!r}; this server serves {self._name!r}"
            case ["v2", "models", _, "versions", name, *_] if name not in self._versions:
                return f"unknown version {name[:80]!r} of {self._name!r}; this server serves {self._versions[0]!r}"
        return f"unknown path {path[:200]!r}; this server speaks the Open Inference Protocol v2"

    def _readiness(self) -> int:
        return 200 if self.is_ready else 503

    def _server(self) -> tuple[int, Any]:
        return 200, {"name": "mlops", "version": _version(), "extensions": []}

    def _metadata(self) -> tuple[int, Any]:
        if self._predictor is None:
            raise RequestError(503, "the model is being loaded", (_RETRY,))
        return 200, self._predictor.metadata()


def _trace_of(pairs: list[Header]) -> Trace:
    return continue_trace(
        [value for name, value in pairs if name == b"traceparent"],
        [value for name, value in pairs if name == b"tracestate"],
    )


def _check_content(headers: dict[bytes, bytes]) -> None:
    """Check the headers that describe the body. A body without a content type is read as JSON, unless a page sent it.

    Browsers ask before a page of another site may send JSON, but not before it sends a body without a type.

    Raises:
        RequestError: 415: the body is not plain JSON.
    """
    given = headers.get(b"content-type")
    if given is None and b"origin" in headers:
        raise RequestError(415, "content-type: expected application/json from a web page, found none")
    if given is not None:
        kind, *parameters = (part.strip().lower() for part in given.split(b";"))
        if kind != b"application/json" or any(p not in (b"charset=utf-8", b'charset="utf-8"', b"") for p in parameters):
            raise RequestError(415, f"content-type: expected application/json, found {given[:80].decode('latin-1')}")
    if b"inference-header-content-length" in headers:
        raise RequestError(415, "the binary tensor data extension is not supported; send the data as JSON")
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding.lower() != b"identity":
        raise RequestError(415, f"content-encoding: expected none, found {encoding[:80].decode('latin-1')}")


def _error(message: str) -> bytes:
    # A message may quote a lone surrogate from the client, which UTF-8 cannot encode.
    return msgspec.json.encode({"error": message.encode(errors="replace").decode()})


def _unexpected(parent: bytes, *, quotes: bool = True) -> bytes:
    """Log an unexpected error; return a body that names only its id in the log.

    Args:
        parent: trace of the request.
        quotes: False to leave out the message of the error, which may quote a personal value.
    """
    name = parent[TRACE].decode()
    if quotes:
        logger.exception("unexpected error", extra={"trace": name})
    else:
        kind, _, where = sys.exc_info()
        text = f"{kind.__name__ if kind else 'error'}\n{''.join(traceback.format_tb(where))}"
        logger.error("unexpected error: %s", text, extra={"trace": name})
    return _error(f"unexpected error; trace {name} in the server's log")


def _version() -> str:
    try:
        return version("mlops")
    except PackageNotFoundError:  # the image has the code, but no distribution
        return "0"
