"""Recorded requests to a Kubernetes API server, and a comparison of the answers of two servers.

The requests are in `api_requests.yaml`, in scenarios. Each scenario has a namespace, `ns` in its paths and bodies. A
word `$name.path` in a path or a body stands for a value of an earlier answer.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

REQUESTS = Path(__file__).parent / "api_requests.yaml"
ANSWERS = Path(__file__).parent / "api_answers.json"
"""The answers of the real API server."""

_REFERENCE = re.compile(r"\$([a-z]\w*)((?:\.\w+)+)")
_GENERATED = {
    "clusterIP",
    "clusterIPs",
    "continue",
    "creationTimestamp",
    "deletionTimestamp",
    "resourceVersion",
    "time",
    "uid",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
}
_TEXTS = {"description", "message"}
_AGE = re.compile(r"\d+[smhd]")
_CONTROLLERS = {"kube-controller-manager"}
_BY_CONTROLLERS = {"deployment.kubernetes.io/revision"}


@dataclass(frozen=True)
class RecordedRequest:
    """A recorded request.

    Attributes:
        scenario: scenario that it belongs to.
        name: name within the scenario.
        method: HTTP method.
        path: path with its query.
        body: JSON value, text, or None.
        type: media type of the body.
        headers: other headers.
        encoded: body in base64, for formats that are not text.
        save: name by which later requests refer to the answer.
        differs: reason why the laptop answers differently, "" if it does not.
    """

    scenario: str
    name: str
    method: str
    path: str
    body: Any = None
    type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    encoded: str = ""
    save: str = ""
    differs: str = ""

    @property
    def id(self) -> str:
        """Name of the request among all."""
        return f"{self.scenario}/{self.name}"


@dataclass(frozen=True)
class Answer:
    """What is compared of an answer: status, media type, number of warnings, and the body without generated values."""

    status: int
    type: str
    warnings: int
    body: Any

    def as_json(self) -> dict[str, Any]:
        """Return the answer as JSON."""
        return {"status": self.status, "type": self.type, "warnings": self.warnings, "body": self.body}


@functools.cache
def read_requests() -> tuple[RecordedRequest, ...]:
    """Return the recorded requests in their order."""
    found = []
    for scenario, steps in yaml.safe_load(REQUESTS.read_text()).items():
        for number, step in enumerate(steps, start=1):
            method, _, path = step["do"].partition(" ")
            rest = {key: value for key, value in step.items() if key not in ("do", "name")}
            name = f"{number:02} {step.get('name', step['do'])}"
            found.append(RecordedRequest(scenario, name, method, path, **rest))
    return tuple(found)


def send_all(
    client: httpx.Client, prefix: str, *, prepare: Callable[[str], None] = lambda namespace: None
) -> dict[str, Answer]:
    """Send every request, in order, and return the answers.

    Args:
        client: client of an API server, with an administrator's token.
        prefix: prefix of the namespaces, which are created.
        prepare: called with the name of each new namespace.
    """
    answers: dict[str, Answer] = {}
    saved: dict[str, Any] = {}
    namespace, scenario = "", ""
    for request in read_requests():
        if request.scenario != scenario:
            scenario, saved = request.scenario, {}
            namespace = f"{prefix}-{scenario}"
            client.post("/api/v1/namespaces", json={"metadata": {"name": namespace}}).raise_for_status()
            prepare(namespace)
        answer = _send(client, request, namespace, saved)
        if request.save:
            saved[request.save] = answer.json()
        answers[request.id] = normalised(answer, namespace)
    return answers


def _send(client: httpx.Client, request: RecordedRequest, namespace: str, saved: Mapping[str, Any]) -> httpx.Response:
    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {fill(key): fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        if isinstance(value, str):
            return _REFERENCE.sub(look_up, value.replace("{ns}", namespace))
        return value

    def look_up(match: re.Match[str]) -> str:
        found = saved[match[1]]
        for key in match[2].strip(".").split("."):
            found = found[int(key) if key.isdigit() else key]
        return str(found)

    body = fill(request.body)
    headers = {"User-Agent": "recorded/1", **request.headers}
    content: bytes | None = None
    if body is not None:
        headers["Content-Type"] = request.type
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
    if request.encoded:
        headers["Content-Type"], content = request.type, base64.b64decode(request.encoded)
    if "watch=" in request.path:
        return _first_events(client, fill(request.path), headers)
    return client.request(request.method, fill(request.path), content=content, headers=headers)


def _first_events(client: httpx.Client, path: str, headers: Mapping[str, str]) -> httpx.Response:
    """Return a watch's answer with its events as a list. The path limits its time."""
    with client.stream("GET", path, headers=headers) as stream:
        text = "".join(stream.iter_text())
        events = [json.loads(line) for line in text.splitlines() if line] if stream.is_success else json.loads(text)
        return httpx.Response(stream.status_code, headers={"Content-Type": stream.headers["Content-Type"]}, json=events)


def normalised(answer: httpx.Response, namespace: str) -> Answer:
    """Return what is compared of an answer."""
    type_ = answer.headers.get("Content-Type", "").partition(";")[0]
    body: Any = answer.text
    if type_ == "application/json":
        body = answer.json()
    if isinstance(body, str):
        body = yaml.safe_load(body) if type_ == "application/yaml" else body.replace(namespace, "{ns}")[:200]
    return Answer(
        answer.status_code, type_, len(answer.headers.get_list("Warning")), _shape(body, namespace, is_generated=False)
    )


def _shape(value: Any, namespace: str, *, is_generated: bool) -> Any:
    """Return a value without what differs from run to run: generated values, texts, and what controllers write."""
    if isinstance(value, dict):
        named = _is_generated_name(value)
        result = {}
        for key, item in value.items():
            if key in _BY_CONTROLLERS or (key in _TEXTS and isinstance(item, str)):
                continue
            if key == "managedFields" and isinstance(item, list):
                item = sorted(
                    (entry for entry in item if entry.get("manager") not in _CONTROLLERS), key=_order_of_manager
                )
            shaped = _shape(item, namespace, is_generated=key in _GENERATED or (named and key == "name"))
            if key == "cells":
                shaped = ["<age>" if isinstance(cell, str) and _AGE.fullmatch(cell) else cell for cell in shaped]
            result[key.replace(namespace, "{ns}")] = shaped
        return dict(sorted(result.items()))
    if isinstance(value, list):
        return [_shape(item, namespace, is_generated=is_generated) for item in value]
    if is_generated and value is not None:
        return f"<{type(value).__name__}>"
    return value.replace(namespace, "{ns}") if isinstance(value, str) else value


def _is_generated_name(value: Mapping[str, Any]) -> bool:
    return bool(value.get("generateName")) and "creationTimestamp" in value


def _order_of_manager(entry: Mapping[str, Any]) -> str:
    return json.dumps([entry.get(key, "") for key in ("operation", "manager", "subresource", "apiVersion")])


def differences(real: Any, ours: Any, path: str = "") -> list[str]:
    """Return the differences between two answers as JSON, one line each."""
    if isinstance(real, dict) and isinstance(ours, dict):
        found = []
        for key in [*real, *(key for key in ours if key not in real)]:
            here = f"{path}.{key}" if path else str(key)
            if key not in ours:
                found.append(f"{here}: missing; the real server gives {_short(real[key])}")
            elif key not in real:
                found.append(f"{here}: {_short(ours[key])}; the real server gives none")
            else:
                found += differences(real[key], ours[key], here)
        return found
    if isinstance(real, list) and isinstance(ours, list) and len(real) == len(ours):
        return [
            line
            for index, (one, other) in enumerate(zip(real, ours, strict=True))
            for line in differences(one, other, f"{path}[{index}]")
        ]
    return [] if real == ours else [f"{path}: {_short(ours)}; the real server gives {_short(real)}"]


def _short(value: Any) -> str:
    return json.dumps(value)[:160]
