"""Copy a run to an MLflow server by its REST API (https://mlflow.org/docs/latest/rest-api.html).

The copy is for people who look at runs there. Nothing reads it, so a failure is a line in the log and never fails a
training. The server is named by MLflow's standard variables; the environment's configuration sets them.
"""

from __future__ import annotations

import json
import re
import ssl
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.run_facts import RunFacts, flatten
from pipelines.declarations.time_limits import finishes_within

URI, TOKEN = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
"""Environment variables of MLflow (https://mlflow.org/docs/latest/python_api/mlflow.environment_variables.html)."""

REQUEST_SECONDS = 10.0
ALL_SECONDS = 45.0
"""Timeouts of one request, and of all together."""

LONGEST_COPY = ALL_SECONDS + 2 * REQUEST_SECONDS
"""Seconds after which the copy is given up, whatever the server sends."""

LARGEST_ANSWER = 1 << 20  # bytes

MOST_PARAMETERS, MOST_METRICS = 100, 500
"""Items in one request; MLflow takes 100 parameters, and 1,000 items in all."""

LONGEST_PARAMETER = 500
"""Characters of a parameter's value. Servers before MLflow 2.8 take no more."""

LONGEST_NAME = 250
RUN_TAG, ENVIRONMENT_TAG = "mlops.run", "mlops.environment"

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NOT_IN_NAMES = re.compile(r"[^\w. /:-]", re.ASCII)
_CODE = re.compile(r"[A-Z_]{1,64}")
_CREDENTIAL = re.compile(r"[\x21-\x7e]+")


class MirrorError(MlopsError):
    """The run cannot be copied. The message has no credentials and no text of the server."""


class _RefusedError(MirrorError):
    """The server has refused a request.

    Attributes:
        code: MLflow's name of the error.
    """

    def __init__(self, path: str, status: int, code: str) -> None:
        super().__init__(f"{path}: expected the status 200, found {status}{f' {code}' if code else ''}")
        self.code = code


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would send the token to another address."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def mirror_run(
    environ: Mapping[str, str], environment: str, run: str, bundle: str, facts: RunFacts, say: Callable[[str], None]
) -> None:
    """Copy a run to the MLflow server that the environment variables name; do nothing if they name none.

    Copying a run again adds nothing. Never raises.

    Args:
        environ: environment variables.
        environment: name of the environment.
        run: id of the run.
        bundle: digest of its bundle.
        facts: its facts.
        say: receives one line: where the copy is, or why there is none.
    """
    if not environ.get(URI):
        return
    results: list[str] = []
    ends = finishes_within(LONGEST_COPY, lambda: results.append(_copy(environ, environment, run, bundle, facts)))
    say(results[0] if ends else "MLflow has no complete copy of this run: the server does not end its answer")


def _copy(environ: Mapping[str, str], environment: str, run: str, bundle: str, facts: RunFacts) -> str:
    """Copy a run, and return where the copy is, or why there is none."""
    try:
        copied = _Server(environ).copy(environ.get(EXPERIMENT) or facts.model, environment, run, bundle, facts)
    except MirrorError as error:
        return f"MLflow has no copy of this run: {error.what}"
    except Exception as error:  # its text may quote a header or a URL
        return f"MLflow has no copy of this run: {type(error).__name__}"
    return f"copied to MLflow as run {copied}"


def checked_url(uri: str) -> SplitResult:
    """Return the parts of a tracking URI.

    Raises:
        MirrorError: it is not HTTPS or a loopback address, or has credentials.
    """
    parts = urlsplit(uri)
    is_loopback = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not (parts.hostname and (parts.scheme == "https" or is_loopback)):
        raise MirrorError(f"{URI}: expected https://…, or http:// with a loopback address; found another address")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise MirrorError(f"{URI}: expected an address without credentials, found some", fix=f"use {TOKEN}")
    return parts


class _Server:
    def __init__(self, environ: Mapping[str, str]) -> None:
        parts = checked_url(environ[URI])
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/api/2.0/mlflow/"
        self._headers = {"content-type": "application/json", **_authorization(environ)}
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if parts.scheme == "https":
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
        else:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)
        self._ends = time.monotonic() + ALL_SECONDS

    def copy(self, experiment: str, environment: str, run: str, bundle: str, facts: RunFacts) -> str:
        """Copy a run, and return its id in MLflow.

        Raises:
            MirrorError: the server does not answer, or refuses a request.
        """
        where = self._experiment(experiment)
        tags = {ENVIRONMENT_TAG: environment, RUN_TAG: run, **tags_of(bundle, facts)}
        found = self._find(where, environment, run)
        if found is None:
            created = self._post(
                "runs/create",
                experiment_id=where,
                run_name=run,
                start_time=_milliseconds(facts.started),
                tags=[{"key": name, "value": value} for name, value in tags.items()],
            )
            found = str(created["run"]["info"]["run_id"])
        for batch in batches_of(facts):
            self._post("runs/log-batch", run_id=found, **batch)
        self._post("runs/update", run_id=found, status="FINISHED", end_time=_milliseconds(facts.finished))
        return found

    def _experiment(self, name: str) -> str:
        try:
            return self._experiment_id(name)
        except _RefusedError as error:
            if error.code != "RESOURCE_DOES_NOT_EXIST":
                raise
        try:
            return str(self._post("experiments/create", name=name)["experiment_id"])
        except _RefusedError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":  # another job was faster
                raise
        return self._experiment_id(name)

    def _experiment_id(self, name: str) -> str:
        found = self._send(f"experiments/get-by-name?{urlencode({'experiment_name': name})}", None)
        return str(found["experiment"]["experiment_id"])

    def _find(self, experiment: str, environment: str, run: str) -> str | None:
        condition = f"tags.`{RUN_TAG}` = '{run}' AND tags.`{ENVIRONMENT_TAG}` = '{environment}'"
        found = self._post("runs/search", experiment_ids=[experiment], filter=condition, max_results=1)
        runs = found.get("runs") or []
        return str(runs[0]["info"]["run_id"]) if runs else None

    def _post(self, path: str, **content: Any) -> dict[str, Any]:
        return self._send(path, json.dumps(content).encode())

    def _send(self, path: str, content: bytes | None) -> dict[str, Any]:
        left = self._ends - time.monotonic()
        name = path.partition("?")[0]
        if left <= 0:
            raise MirrorError(f"{name}: expected an end within {ALL_SECONDS:g} seconds, found none")
        request = urllib.request.Request(self._base + path, data=content, headers=self._headers)  # noqa: S310  checked
        try:
            with self._opener.open(request, timeout=min(REQUEST_SECONDS, left)) as answer:
                text = answer.read(LARGEST_ANSWER + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise _RefusedError(name, error.code, _code_of(error.read(LARGEST_ANSWER))) from None
        except OSError as error:  # also URLError, and a timeout
            reason = getattr(error, "reason", error)
            kind = type(reason if isinstance(reason, Exception) else error).__name__
            raise MirrorError(f"{name}: the server does not answer ({kind})") from None
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if len(text) > LARGEST_ANSWER or not isinstance(found, dict):
            raise MirrorError(f"{name}: expected a JSON object of at most {LARGEST_ANSWER} bytes, found something else")
        return found


def _authorization(environ: Mapping[str, str]) -> dict[str, str]:
    token, user, password = (environ.get(name, "").strip() for name in (TOKEN, USER, PASSWORD))
    if token:
        if not _CREDENTIAL.fullmatch(token):
            raise MirrorError(f"{TOKEN}: expected printable characters without spaces, found others")
        return {"authorization": f"Bearer {token}"}
    if user or password:
        return {"authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}
    return {}


def _code_of(content: bytes) -> str:
    """Return the name of an error in an answer; "" if it has none."""
    try:
        code = json.loads(content)["error_code"]
    except (ValueError, KeyError, TypeError):
        return ""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _milliseconds(instant: str | None) -> int | None:
    return round(datetime.fromisoformat(instant).timestamp() * 1000) if instant is not None else None


def tags_of(bundle: str, facts: RunFacts) -> dict[str, str]:
    """Return the tags of a run: what it was made from, and what it made."""
    dataset = facts.dataset
    return {
        "mlops.bundle": bundle,
        "mlops.model": facts.model,
        "mlops.dataset": dataset.dataset,
        "mlops.snapshot": dataset.snapshot,
        "mlops.data": dataset.content,
        "mlops.image": facts.image or "",
        "mlops.source": facts.source.model,
        "mlflow.source.git.commit": facts.commit or "",
        "mlflow.source.type": "JOB",
    }


def batches_of(facts: RunFacts) -> Iterator[dict[str, Any]]:
    """Yield the parameters and metrics of a run in parts that MLflow takes at once.

    A name keeps the characters that MLflow allows. The ends of an interval are metrics, too: `rmse/low`, `rmse/high`.
    """
    values = {"seed": facts.seed, **flatten(facts.parameters)}
    texts = {
        _name(name): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
    }
    parameters = [{"key": name, "value": value[:LONGEST_PARAMETER]} for name, value in texts.items()]
    figures: dict[str, float] = {}
    for name, estimate in facts.metrics.items():
        ends = ((name, estimate.value), (f"{name}/low", estimate.low), (f"{name}/high", estimate.high))
        figures |= {key: value for key, value in ends if value is not None}
    ended = _milliseconds(facts.finished) or 0
    metrics = [{"key": name, "value": value, "timestamp": ended, "step": 0} for name, value in figures.items()]
    for start in range(0, len(parameters), MOST_PARAMETERS):
        yield {"params": parameters[start : start + MOST_PARAMETERS]}
    for start in range(0, len(metrics), MOST_METRICS):
        yield {"metrics": metrics[start : start + MOST_METRICS]}


def _name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)[:LONGEST_NAME].strip("/. ") or "_"
