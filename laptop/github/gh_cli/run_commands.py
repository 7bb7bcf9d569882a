"""The commands `gh run …` and `gh workflow …`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from laptop.github.forge.actors import Actor, RequestDeniedError
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.repository_creation import MAIN
from laptop.github.forge.settings_routes import list_workflows
from laptop.github.forge.webhook_event import SERVER_URL
from laptop.github.gh_cli.arguments import Arguments, GhCommand, UsageError, read_fields
from laptop.github.gh_cli.json_output import pick_fields, print_json, run_fields
from laptop.github.gh_cli.pull_commands import duration
from pipelines.declarations.errors import MlopsError

_MARKS = {"success": "✓", "failure": "X", "cancelled": "X", "startup_failure": "X", "skipped": "-"}
_WATCH_SECONDS = 3


def workflow_run(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Start a workflow that has workflow_dispatch."""
    server.dispatch(actor, given.operands[0], given.one("--ref", MAIN), read_fields(given))


def workflow_list(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """List workflows."""
    actor.need("read", "actions")
    found = [each for each in list_workflows(server) if given.has("--all") or each["state"] == "active"]
    found = found[: given.whole("--limit", 50)]
    if given.has("--json"):
        fields = [{name: (lambda value=value: value) for name, value in each.items()} for each in found]
        print_json([pick_fields(each, given.one("--json")) for each in fields], given)
        return
    for each in found:
        print(f"{each['name']}\t{each['state']}\t{each['id']}")


def run_list(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """List workflow runs."""
    actor.need("read", "actions")
    found = []
    for run in server.runs():
        workflow = given.one("--workflow", run["path"])
        matches = (
            workflow in (run["path"], run["path"].rsplit("/", 1)[-1], run["workflow"])
            and given.one("--branch", run["branch"]) == run["branch"]
            and given.one("--event", run["event"]) == run["event"]
            and given.one("--commit", run["head_sha"]) == run["head_sha"]
            and given.one("--user", run["actor"]) == run["actor"]
            and given.one("--status", run["status"]) in (run["status"], run["conclusion"])
        )
        found += [run] if matches else []
    found = found[: given.whole("--limit", 20)]
    if given.has("--json"):
        print_json([pick_fields(run_fields(server, run), given.one("--json")) for run in found], given)
        return
    for run in found:
        names = ("status", "conclusion", "title", "workflow", "branch", "event", "number", "created_at")
        print("\t".join(str(run[name]) for name in names))


def run_cancel(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Cancel a workflow run."""
    run = _find_run(server, given)
    server.cancel_run(actor, run["number"])
    print("✓ Request to cancel workflow submitted.")


def run_rerun(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Run a workflow run again: all of its jobs, also with --failed."""
    from laptop.github.runner.run_records import requeue

    actor.need("write", "actions")
    number = _number(given)
    with server.change() as state:
        requeue(server, state, number, lambda run: None)
    print(f"✓ Requested rerun of run {number}")


def run_view(server: GitHubServer, actor: Actor, given: Arguments) -> int:
    """Show a workflow run, or its logs."""
    actor.need("read", "actions")
    run = _find_run(server, given)
    if given.has("--json"):
        print_json(pick_fields(run_fields(server, run), given.one("--json")), given)
    elif given.has("--log") or given.has("--log-failed"):
        for line in _log_lines(server.run_jobs(run["number"]), failed=given.has("--log-failed")):
            print(line)
    else:
        print("\n".join(_describe(server, run, steps=given.has("--verbose"))))
    return _exit_code(run) if given.has("--exit-status") else 0


def run_watch(server: GitHubServer, actor: Actor, given: Arguments) -> int:
    """Show the jobs of a run until it ends; without a number, of the newest that has not ended."""
    actor.need("read", "actions")
    unfinished = [each for each in server.runs() if each["status"] != "completed"]
    if not given.operands and not unfinished:
        raise MlopsError("found no in progress runs to watch")
    run = _find_run(server, given) if given.operands else unfinished[0]
    shown: set[str] = set()
    while True:
        run = next(each for each in server.runs() if each["number"] == run["number"])
        for job in server.run_jobs(run["number"]):
            line = _job_line(job)
            if line not in shown:
                shown.add(line)
                print(line, flush=True)
        if run["status"] == "completed":
            break
        time.sleep(given.whole("--interval", _WATCH_SECONDS))
    print(f"Run {run['workflow']} ({run['number']}) completed with '{run['conclusion']}'")
    return _exit_code(run) if given.has("--exit-status") else 0


def _exit_code(run: Mapping[str, Any]) -> int:
    return 0 if run["status"] != "completed" or run["conclusion"] in ("success", "skipped", "neutral") else 1


def _number(given: Arguments) -> int:
    if not given.operands[0].isdecimal():
        raise UsageError(f"expected the number of a run, found {given.operands[0]!r}; `gh run list` shows the numbers")
    return int(given.operands[0])


def _find_run(server: GitHubServer, given: Arguments) -> dict[str, Any]:
    number = _number(given)
    run = next((run for run in server.runs() if run["number"] == number), None)
    if run is None:
        raise RequestDeniedError(404, "Not Found", fix="gh run list")
    return run


def _describe(server: GitHubServer, run: Mapping[str, Any], *, steps: bool) -> Iterator[str]:
    """Yield the lines of a run: its jobs, the steps of those that failed, its annotations, and where its log is."""
    jobs = server.run_jobs(run["number"])
    mark = _MARKS.get(run["conclusion"], "*")
    yield f"{mark} {run['branch']} {run['workflow']} · {run['number']} (attempt {run['attempt']})"
    yield f"Triggered via {run['event']} at {run['created_at']} by {run['actor']}; {run['conclusion'] or run['status']}"
    yield from (f"X {problem}" for problem in server.run_problems(run["number"]))
    yield "\nJOBS"
    for job in jobs:
        yield _job_line(job)
        if steps or job["conclusion"] not in ("success", "skipped"):
            yield from (f"  {_MARKS.get(step['conclusion'], '*')} {step['name']}" for step in job["steps"])
    if annotations := [(job, each) for job in jobs for each in job["annotations"]]:
        yield "\nANNOTATIONS"
        for job, each in annotations:
            where = f": {each['file']}#{each['line']}" if each["file"] else ""
            yield f"{'X' if each['level'] == 'error' else '!'} {each['message']}\n{job['name']}{where}\n"
    option = "log" if run["conclusion"] == "success" else "log-failed"
    yield f"\nTo see the log, try: gh run view {run['number']} --{option}"
    yield f"View this run on GitHub: {SERVER_URL}/{server.full_name}/actions/runs/{run['number']}"


def _job_line(job: Mapping[str, Any]) -> str:
    return f"{_MARKS.get(job['conclusion'], '*')} {job['name']} in {duration(job['seconds'])}"


def _log_lines(jobs: Sequence[Mapping[str, Any]], *, failed: bool) -> Iterator[str]:
    """Yield the lines of the logs as `job<TAB>step<TAB>line`; with `failed`, those of failed steps alone."""
    for job in jobs:
        if not job["log"] or (failed and job["conclusion"] not in ("failure", "cancelled")):
            continue
        lines = Path(job["log"]).read_text(encoding="utf-8").split("\n")[:-1]
        starts = sorted((step["first_line"], step) for step in job["steps"] if step["first_line"] is not None)
        for at, (first, step) in enumerate(starts):
            if failed and step["conclusion"] not in ("failure", "cancelled"):
                continue
            last = starts[at + 1][0] if at + 1 < len(starts) else len(lines)
            yield from (f"{job['name']}\t{step['name']}\t{line}" for line in lines[first:last])


_JSON = "--json --jq/-q"

RUN_COMMANDS = (
    GhCommand(
        "workflow run",
        workflow_run,
        "FILE | NAME",
        (1, 1),
        "--raw-field/-f --field/-F --ref/-r",
    ),
    GhCommand("workflow list", workflow_list, valued=f"--limit/-L {_JSON}", flags="--all/-a"),
    GhCommand("run cancel", run_cancel, "NUMBER", (1, 1)),
    GhCommand(
        "run list",
        run_list,
        valued=f"--workflow/-w --branch/-b --event/-e --status/-s --commit/-c --user/-u --limit/-L {_JSON}",
    ),
    GhCommand(
        "run rerun",
        run_rerun,
        "NUMBER",
        (1, 1),
        flags="--failed",
    ),
    GhCommand(
        "run view",
        run_view,
        "NUMBER",
        (1, 1),
        _JSON,
        "--log --log-failed --verbose/-v --exit-status",
    ),
    GhCommand(
        "run watch",
        run_watch,
        "[NUMBER]",
        (0, 1),
        "--interval/-i",
        "--exit-status",
    ),
)
