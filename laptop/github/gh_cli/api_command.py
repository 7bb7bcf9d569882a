"""The command `gh api`."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

from laptop.github.forge.actors import Actor
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.rest_api import request
from laptop.github.gh_cli.arguments import Arguments, GhCommand, UsageError, read_text
from laptop.github.gh_cli.json_output import print_query

_FILTERS = ("head_sha",)
"""Parameters of the query that a route reads."""


def call_api(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Send a request to the REST API and print the answer."""
    path, _, query = given.operands[0].lstrip("/").partition("?")
    path = path.replace("{owner}/{repo}", server.full_name)
    fields: dict[str, Any] = {}
    for name in ("--raw-field", "--field"):
        for pair in given.options.get(name, []):
            key, equals, text = pair.partition("=")
            if not equals:
                raise UsageError(f"{name}: expected key=value, found {pair!r}")
            _put(fields, key, text if name == "--raw-field" else _typed_value(text))
    filters: dict[str, str] = {}
    pages = dict(pair.partition("=")[::2] for pair in query.split("&"))
    for pair in filter(None, query.split("&")):
        name, _, text = pair.partition("=")
        if name in _FILTERS:
            filters[name] = text
        elif name not in ("per_page", "page"):
            raise UsageError(f"the query parameter {pair!r} is not implemented here")
    if given.has("--input"):
        fields = _json_object(read_text(given.one("--input")))
    method = given.one("--method", "POST" if fields else "GET").upper()
    answer = request(server, actor, method, unquote(path), {**filters, **fields})
    if "page" in pages:
        answer = _page_of(answer, int(pages["page"]), int(pages.get("per_page", "30")))
    if answer is not None and not given.has("--silent"):
        if given.has("--jq"):
            print_query(answer, given.one("--jq"))
        else:
            print(json.dumps(answer, ensure_ascii=False, separators=(",", ":")))


def _page_of(answer: Any, number: int, size: int) -> Any:
    """Return one page of a list, or of the list in an answer that counts it."""
    if isinstance(answer, list):
        return answer[(number - 1) * size : number * size]
    return {key: _page_of(value, number, size) if isinstance(value, list) else value for key, value in answer.items()}


def _typed_value(text: str) -> Any:
    """Convert a value of `-F`: `@file` to its content, true, false, null and integers to themselves."""
    if text.startswith("@"):
        return read_text(text[1:])
    if text in ("true", "false", "null"):
        return json.loads(text)
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def _put(fields: dict[str, Any], key: str, value: Any) -> None:
    """Set a field; `client_payload[model]` is the key `model` of the object `client_payload`."""
    match = re.fullmatch(r"([^\[\]]+)((?:\[[^\[\]]+\])*)", key)
    if match is None:
        raise UsageError(f"{key!r} is not a valid key")
    steps = [match[1], *re.findall(r"\[([^\[\]]+)\]", match[2])]
    for step in steps[:-1]:
        fields = fields.setdefault(step, {})
    fields[steps[-1]] = value


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--input is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError("--input is not a JSON object")
    return value


API_COMMANDS = (
    GhCommand(
        "api",
        call_api,
        "PATH",
        (1, 1),
        "--method/-X --field/-F --raw-field/-f --input --jq/-q --header/-H",
        "--paginate --silent",
    ),
)
