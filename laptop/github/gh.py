"""A twin of the GitHub CLI for the laptop: the commands that our code uses, on the laptop's forge.

It takes exactly those arguments and refuses everything else with exit code 2, so that a command that would mean
something else on GitHub cannot seem to work here. `MLOPS_FORGE` is the forge's folder; `GH_TOKEN` says who calls.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from laptop.github.access import Actor, RefusedError
from laptop.github.api import request
from laptop.github.events import SERVER
from laptop.github.forge import MAIN, Forge
from laptop.github.pulls import PullRequest
from pipelines.declarations.errors import MlopsError

_SHORT = {"-R": "--repo", "-t": "--title", "-F": "--field", "-f": "--raw-field", "-X": "--method", "-q": "--jq"}
_PULL_SHORT = {**_SHORT, "-F": "--body-file", "-H": "--head", "-B": "--base", "-l": "--label", "-L": "--limit"}
_PULL_SHORT |= {"-s": "--state", "-a": "--approve", "-m": "--merge"}
_LIST_SHORT = {**_SHORT, "-L": "--limit", "-w": "--workflow", "-b": "--branch", "-e": "--event"}


class UsageError(Exception):
    """Arguments that this twin does not know."""


class NotAuthenticatedError(Exception):
    """There is no token."""


@dataclass
class _Given:
    """What a command was called with."""

    operands: list[str] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)

    def one(self, name: str, default: str | None = None) -> str:
        values = self.options.get(name)
        if values is None:
            if default is None:
                raise UsageError(f"{name} is needed here")
            return default
        if len(values) > 1:
            raise UsageError(f"{name} is given {len(values)} times")
        return values[0]

    def has(self, name: str) -> bool:
        return name in self.options

    def number(self) -> int:
        if len(self.operands) != 1 or not self.operands[0].isdecimal():
            raise UsageError(f"one number is needed, found {self.operands}")
        return int(self.operands[0])


def _read(arguments: Sequence[str], valued: str, flags: str, short: Mapping[str, str], operands: int) -> _Given:
    given, rest = _Given(), list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-") or argument == "-":
            given.operands.append(argument)
            continue
        name, equals, value = argument.partition("=") if argument.startswith("--") else (argument, "", "")
        name = short.get(name, name)
        if name in flags.split() and not equals:
            given.options[name] = []
        elif name in f"{valued} --repo".split():
            if not equals:
                if not rest:
                    raise UsageError(f"{name} needs a value")
                value = rest.pop(0)
            given.options.setdefault(name, []).append(value)
        else:
            raise UsageError(f"unknown argument {argument!r}")
    if len(given.operands) != operands:
        raise UsageError(f"{operands} operands are expected, found {given.operands}")
    return given


# --- pr --------------------------------------------------------------------------------------------------------------


def _pr_create(forge: Forge, actor: Actor, arguments: Sequence[str]) -> None:
    given = _read(arguments, "--title --body-file --head --base --label", "", _PULL_SHORT, 0)
    pull = forge.open_pull_request(
        actor,
        title=given.one("--title"),
        body=_text(given.one("--body-file")),
        head=given.one("--head"),
        base=given.one("--base"),
        labels=[label for value in given.options.get("--label", []) for label in value.split(",")],
    )
    print(_url(forge, pull))


def _pr_list(forge: Forge, actor: Actor, arguments: Sequence[str]) -> None:
    given = _read(arguments, "--head --base --state --label --limit --json --jq", "", _PULL_SHORT, 0)
    actor.need("read", "pull-requests")
    state = given.one("--state", "open")
    if state not in ("open", "closed", "merged", "all"):
        raise UsageError(f"--state is open, closed, merged or all, found {state!r}")
    wanted = {"open": ("OPEN",), "closed": ("CLOSED", "MERGED"), "merged": ("MERGED",)}
    found = [
        pull
        for pull in forge.pull_requests()
        if (state == "all" or pull.state in wanted[state])
        and pull.head == given.one("--head", pull.head)
        and pull.base == given.one("--base", pull.base)
        and all(label in pull.labels for label in given.options.get("--label", []))
    ][: int(given.one("--limit", "30"))]
    if given.has("--json"):
        _print_json([_pick(_pull_fields(forge, pull), given.one("--json")) for pull in found], given)
        return
    for pull in found:
        print(f"{pull.number}\t{pull.title}\t{pull.head}\t{pull.state}\t{pull.created_at}")


def _pr_view(forge: Forge, actor: Actor, arguments: Sequence[str]) -> None:
    given = _read(arguments, "--json --jq", "--comments", {**_PULL_SHORT, "-c": "--comments"}, 1)
    actor.need("read", "pull-requests")
    pull = forge.pull_request(given.number())
    if given.has("--json"):
        _print_json(_pick(_pull_fields(forge, pull), given.one("--json")), given)
        return
    about = {
        "title": pull.title,
        "state": pull.state,
        "author": pull.author,
        "number": pull.number,
        "url": _url(forge, pull),
    }
    said = (
        [(comment["author"], comment["body"]) for comment in forge.comments(pull.number)]
        if given.has("--comments")
        else []
    )
    for name, value in about.items():
        print(f"{name}:\t{value}")
    for who, text in [("", pull.body), *said]:
        print(f"--\n{who}:\n{text}" if who else f"--\n{text}")


def _pr_comment(forge: Forge, actor: Actor, arguments: Sequence[str]) -> None:
    given = _read(arguments, "--body-file", "", _PULL_SHORT, 1)
    item = forge.comment(actor, given.number(), _text(given.one("--body-file")))
    print(f"{_url(forge, forge.pull_request(given.number()))}#issuecomment-{item['id']}")


def _pr_review(forge: Forge, actor: Actor, arguments: Sequence[str]) -> None:
    given = _read(arguments, "", "--approve", _PULL_SHORT, 1)
    if not given.has("--approve"):
        raise UsageError("--approve is needed here")
    forge.review(actor, given.number(), approve=True)


def _pr_merge(forge: Forge, actor: Actor, arguments: Sequence[str]) -> None:
    given = _read(arguments, "", "--squash --merge", _PULL_SHORT, 1)
    methods = [name for name in ("--squash", "--merge") if given.has(name)]
    if len(methods) != 1:
        raise UsageError("one of --squash and --merge is needed here")
    forge.merge(actor, given.number(), methods[0].removeprefix("--"))


def _pr_close(forge: Forge, actor: Actor, arguments: Sequence[str]) -> None:
    given = _read(arguments, "", "", _PULL_SHORT, 1)
    forge.close(actor, given.number())


def _url(forge: Forge, pull: PullRequest) -> str:
    return f"{SERVER}/{forge.repository}/pull/{pull.number}"


def _pull_fields(forge: Forge, pull: PullRequest) -> dict[str, Callable[[], Any]]:
    """The fields of `--json`, each worked out only when asked for."""

    def decision() -> str:
        if any(review.state == "CHANGES_REQUESTED" for review in pull.reviews):
            return "CHANGES_REQUESTED"
        rules = forge.settings.protection
        if rules is None:
            return ""
        reasons = [reason for reason in forge.blockers(pull) if "approval" in reason]
        return "REVIEW_REQUIRED" if reasons else "APPROVED"

    def merge_state() -> str:
        facts = forge.facts(pull)
        if facts.conflict:
            return "DIRTY"
        return "BLOCKED" if forge.blockers(pull) else ("BEHIND" if facts.behind else "CLEAN")

    def mergeable() -> str:
        return "UNKNOWN" if pull.state != "OPEN" else ("CONFLICTING" if forge.facts(pull).conflict else "MERGEABLE")

    return {
        "number": lambda: pull.number,
        "title": lambda: pull.title,
        "body": lambda: pull.body,
        "state": lambda: pull.state,
        "url": lambda: _url(forge, pull),
        "author": lambda: {"login": pull.author, "is_bot": pull.author.endswith("[bot]")},
        "headRefName": lambda: pull.head,
        "baseRefName": lambda: pull.base,
        "headRefOid": lambda: pull.head_sha,
        "baseRefOid": lambda: pull.base_sha,
        "labels": lambda: [{"name": label} for label in pull.labels],
        "isDraft": lambda: False,
        "createdAt": lambda: pull.created_at,
        "updatedAt": lambda: pull.updated_at,
        "mergedAt": lambda: pull.merged_at or None,
        "mergedBy": lambda: {"login": pull.merged_by} if pull.merged_by else None,
        "mergeCommit": lambda: {"oid": pull.merge_commit} if pull.merge_commit else None,
        "mergeable": mergeable,
        "mergeStateStatus": merge_state,
        "reviewDecision": decision,
        "reviews": lambda: [
            {"author": {"login": r.author}, "state": r.state, "body": r.body, "submittedAt": r.submitted_at}
            for r in pull.reviews
        ],
        "files": lambda: [{"path": path} for path in forge.files(pull)],
        "comments": lambda: [
            {"author": {"login": c["author"]}, "body": c["body"], "createdAt": c["created_at"]}
            for c in forge.comments(pull.number)
        ],
        "statusCheckRollup": lambda: [
            {
                "__typename": "CheckRun",
                "name": name,
                "workflowName": check["workflow"],
                "status": "COMPLETED" if check["conclusion"] else "IN_PROGRESS",
                "conclusion": check["conclusion"].upper(),
            }
            for name, check in forge.checks(pull.head_sha).items()
        ],
    }


# --- api, workflow, run, auth ----------------------------------------------------------------------------------------


def _api(forge: Forge, actor: Actor, arguments: Sequence[str]) -> None:
    given = _read(arguments, "--method --field --raw-field --input --jq --header", "--paginate --silent", _SHORT_API, 1)
    path, _, query = given.operands[0].lstrip("/").partition("?")
    path = path.replace("{owner}/{repo}", forge.repository)
    fields: dict[str, Any] = {}
    for name in ("--raw-field", "--field"):
        for pair in given.options.get(name, []):
            key, equals, text = pair.partition("=")
            if not equals:
                raise UsageError(f"{name} takes key=value, found {pair!r}")
            _put(fields, key, text if name == "--raw-field" else _magic(text))
    for pair in filter(None, query.split("&")):
        if pair.partition("=")[0] not in ("per_page", "page"):
            raise UsageError(f"the query {pair!r} is not known here")
    if given.has("--input"):
        fields = _json_object(_text(given.one("--input")))
    method = given.one("--method", "POST" if fields else "GET").upper()
    answer = request(forge, actor, method, path, fields)
    if answer is not None and not given.has("--silent"):
        if given.has("--jq"):
            _print_query(answer, given.one("--jq"))
        else:
            print(json.dumps(answer, ensure_ascii=False, separators=(",", ":")))


_SHORT_API = {**_SHORT, "-H": "--header"}


def _magic(text: str) -> Any:
    """What `-F` makes of a value: `@file` its content, true, false, null and whole numbers themselves."""
    if text.startswith("@"):
        return _text(text[1:])
    if text in ("true", "false", "null"):
        return json.loads(text)
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def _put(fields: dict[str, Any], key: str, value: Any) -> None:
    """`client_payload[model]=x` puts x into the object client_payload."""
    match = re.fullmatch(r"([^\[\]]+)((?:\[[^\[\]]+\])*)", key)
    if match is None:
        raise UsageError(f"the key {key!r} is not known here")
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


def _workflow_run(forge: Forge, actor: Actor, arguments: Sequence[str]) -> None:
    given = _read(arguments, "--raw-field --field --ref", "", {**_SHORT, "-r": "--ref"}, 1)
    inputs = {}
    for name in ("--raw-field", "--field"):
        for pair in given.options.get(name, []):
            key, equals, text = pair.partition("=")
            if not equals:
                raise UsageError(f"{name} takes key=value, found {pair!r}")
            inputs[key] = _text(text[1:]) if name == "--field" and text.startswith("@") else text
    forge.dispatch(actor, given.operands[0], given.one("--ref", MAIN), inputs)


def _run_list(forge: Forge, actor: Actor, arguments: Sequence[str]) -> None:
    given = _read(arguments, "--workflow --branch --event --status --commit --limit --json --jq", "", _LIST_SHORT, 0)
    actor.need("read", "actions")
    found = []
    for run in forge.runs():
        workflow = given.one("--workflow", run["path"])
        matches = (
            workflow in (run["path"], run["path"].rsplit("/", 1)[-1], run["workflow"])
            and given.one("--branch", run["branch"]) == run["branch"]
            and given.one("--event", run["event"]) == run["event"]
            and given.one("--commit", run["head_sha"]) == run["head_sha"]
            and given.one("--status", run["status"]) in (run["status"], run["conclusion"])
        )
        found += [run] if matches else []
    found = found[: int(given.one("--limit", "20"))]
    if given.has("--json"):
        _print_json([_pick(_run_fields(forge, run), given.one("--json")) for run in found], given)
        return
    for run in found:
        names = ("status", "conclusion", "title", "workflow", "branch", "event", "number", "created_at")
        print("\t".join(str(run[name]) for name in names))


def _run_view(forge: Forge, actor: Actor, arguments: Sequence[str]) -> None:
    given = _read(arguments, "--json --jq", "--log", _LIST_SHORT, 1)
    actor.need("read", "actions")
    run = next((run for run in forge.runs() if run["number"] == given.number()), None)
    if run is None:
        raise RefusedError(404, "Not Found")
    if not given.has("--log"):
        _print_json(_pick(_run_fields(forge, run), given.one("--json")), given)
        return
    for job in forge.run_jobs(run["number"]):
        for line in Path(job["log"]).read_text(encoding="utf-8").splitlines() if job["log"] else ():
            print(f"{job['name']}\t{line}")


def _run_fields(forge: Forge, run: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    def jobs() -> list[dict[str, Any]]:
        return [
            {
                "name": job["name"],
                "status": "completed",
                "conclusion": job["conclusion"],
                "steps": [
                    {
                        "name": step["name"],
                        "number": step["number"],
                        "status": "completed",
                        "conclusion": step["conclusion"],
                    }
                    for step in job["steps"]
                ],
            }
            for job in forge.run_jobs(run["number"])
        ]

    return {
        "databaseId": lambda: run["number"],
        "number": lambda: run["number"],
        "name": lambda: run["workflow"],
        "workflowName": lambda: run["workflow"],
        "displayTitle": lambda: run["title"],
        "status": lambda: run["status"],
        "conclusion": lambda: run["conclusion"],
        "event": lambda: run["event"],
        "headBranch": lambda: run["branch"],
        "headSha": lambda: run["head_sha"],
        "attempt": lambda: run["attempt"],
        "createdAt": lambda: run["created_at"],
        "url": lambda: f"{SERVER}/{forge.repository}/actions/runs/{run['number']}",
        "jobs": jobs,
    }


def _auth_status(_forge: Forge, actor: Actor, arguments: Sequence[str]) -> None:
    _read(arguments, "", "", _SHORT, 0)
    print(f"{SERVER.removeprefix('https://')}\n  ✓ Logged in as {actor.login} (GH_TOKEN)\n  - Active account: true")


def _auth_setup_git(_forge: Forge, _actor: Actor, arguments: Sequence[str]) -> None:
    _read(arguments, "", "", _SHORT, 0)
    subprocess.run(["git", "config", "--global", f"credential.{SERVER}.helper", "!gh auth git-credential"], check=True)


def _auth_git_credential(_forge: Forge, _actor: Actor, arguments: Sequence[str]) -> None:
    """What git asks its credential helpers; `store` and `erase` are nothing to us."""
    given = _read(arguments, "", "", _SHORT, 1)
    asked = dict(line.partition("=")[::2] for line in sys.stdin.read().splitlines())
    if given.operands == ["get"] and f"{asked.get('protocol')}://{asked.get('host')}" == SERVER:
        token = os.environ.get("GH_TOKEN") or os.environ.get("GITHUB_TOKEN")
        print(f"protocol=https\nhost={asked['host']}\nusername=x-access-token\npassword={token}")


# --- output ----------------------------------------------------------------------------------------------------------


def _pick(fields: Mapping[str, Callable[[], Any]], names: str) -> dict[str, Any]:
    wanted = names.split(",")
    for name in wanted:
        if name not in fields:
            raise UsageError(f"unknown JSON field {name!r}; known here: {', '.join(sorted(fields))}")
    return {name: fields[name]() for name in wanted}


def _print_json(value: Any, given: _Given) -> None:
    if given.has("--jq"):
        _print_query(value, given.one("--jq"))
    else:
        print(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


_STEP = re.compile(r"\.(?P<name>[A-Za-z_]\w*)|\.?\[(?P<index>(?:-?\d+)?)\]")


def _print_query(value: Any, query: str) -> None:
    """The paths of jq (`.a.b`, `.[0].a`, `.[].a`), and nothing else of it; texts are printed bare."""
    values, position = [value], 0
    while position < len(query) and query != ".":
        match = _STEP.match(query, position)
        if match is None:
            raise UsageError(f"of jq only paths such as .a.b, .[0] and .[].a are known here, found {query!r}")
        step = match["name"] if match["name"] is not None else match["index"]
        values = [found for item in values for found in _step(item, step, named=match["name"] is not None)]
        position = match.end()
    for item in values:
        plain = isinstance(item, str)
        print(
            item if plain else json.dumps(item, ensure_ascii=False, separators=(",", ":")) if item is not None else ""
        )


def _step(value: Any, step: str, *, named: bool) -> list[Any]:
    if named and isinstance(value, dict):
        return [value.get(step)]
    if value is None:
        return [None]
    if not named and isinstance(value, list):
        if step == "":
            return value
        return [value[int(step)] if -len(value) <= int(step) < len(value) else None]
    raise UsageError(f"the query does not fit: {step!r} of {type(value).__name__}")


def _text(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MlopsError(f"open {path}: {error}") from None


# --- the command line ------------------------------------------------------------------------------------------------

_COMMANDS: Mapping[tuple[str, ...], Callable[[Forge, Actor, Sequence[str]], None]] = {
    ("pr", "create"): _pr_create,
    ("pr", "list"): _pr_list,
    ("pr", "view"): _pr_view,
    ("pr", "comment"): _pr_comment,
    ("pr", "review"): _pr_review,
    ("pr", "merge"): _pr_merge,
    ("pr", "close"): _pr_close,
    ("api",): _api,
    ("workflow", "run"): _workflow_run,
    ("run", "list"): _run_list,
    ("run", "view"): _run_view,
    ("auth", "status"): _auth_status,
    ("auth", "setup-git"): _auth_setup_git,
    ("auth", "git-credential"): _auth_git_credential,
}


def _check_repository(forge: Forge, arguments: Sequence[str]) -> None:
    """As gh does: the repository is named, or the current folder is a clone."""
    named = os.environ.get("GH_REPO", "")
    for at, argument in enumerate(arguments):
        if argument in ("-R", "--repo") and at + 1 < len(arguments):
            named = arguments[at + 1]
    if named and named != forge.repository:
        raise RefusedError(404, f"Could not resolve to a Repository with the name '{named}'.")
    here = Path.cwd()
    if not named and not any((folder / ".git").exists() for folder in (here, *here.parents)):
        raise MlopsError("failed to run git: fatal: not a git repository", fix="check out first, or set GH_REPO")


def main(arguments: Sequence[str]) -> int:
    """Run one command; 0 is done, 1 refused, 2 not known here, 4 no token."""
    try:
        words = next((words for words in _COMMANDS if tuple(arguments[: len(words)]) == words), None)
        if words is None:
            raise UsageError(f"the command {' '.join(arguments[:2])!r} is not known here")
        folder = os.environ.get("MLOPS_FORGE", "")
        if not folder:
            raise MlopsError("MLOPS_FORGE does not say where the forge is")
        token = os.environ.get("GH_TOKEN") or os.environ.get("GITHUB_TOKEN") or ""
        if not token:
            raise NotAuthenticatedError(
                "to use the GitHub CLI in a workflow, set GH_TOKEN: env: GH_TOKEN: ${{ github.token }}"
            )
        forge = Forge(Path(folder))
        rest = arguments[len(words) :]
        actor = forge.authenticate(token)
        if words[0] != "auth" and words != ("api",):
            _check_repository(forge, rest)
        _COMMANDS[words](forge, actor, rest)
    except UsageError as error:
        print(f"gh (the laptop's twin): {error}", file=sys.stderr)
        return 2
    except NotAuthenticatedError as error:
        print(f"gh: {error}", file=sys.stderr)
        return 4
    except MlopsError as error:
        print(f"gh: {error}", file=sys.stderr)
        return 1
    return 0
