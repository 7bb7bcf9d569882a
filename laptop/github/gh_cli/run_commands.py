"""The commands `gh workflow run` and `gh run …`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from laptop.github.forge.actors import Actor, RequestDeniedError
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.repository_creation import MAIN
from laptop.github.gh_cli.arguments import (
    LIST_SHORT,
    SHORT,
    UsageError,
    read_arguments,
    read_text,
)
from laptop.github.gh_cli.json_output import pick_fields, print_json, run_fields


def workflow_run(server: GitHubServer, actor: Actor, arguments: Sequence[str]) -> None:
    """Start a workflow."""
    given = read_arguments(arguments, "--raw-field --field --ref", "", {**SHORT, "-r": "--ref"}, 1)
    inputs = {}
    for name in ("--raw-field", "--field"):
        for pair in given.options.get(name, []):
            key, equals, text = pair.partition("=")
            if not equals:
                raise UsageError(f"{name}: expected key=value, found {pair!r}")
            inputs[key] = read_text(text[1:]) if name == "--field" and text.startswith("@") else text
    server.dispatch(actor, given.operands[0], given.one("--ref", MAIN), inputs)


def run_list(server: GitHubServer, actor: Actor, arguments: Sequence[str]) -> None:
    """List workflow runs."""
    given = read_arguments(
        arguments, "--workflow --branch --event --status --commit --limit --json --jq", "", LIST_SHORT, 0
    )
    actor.need("read", "actions")
    found = []
    for run in server.runs():
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
        print_json([pick_fields(run_fields(server, run), given.one("--json")) for run in found], given)
        return
    for run in found:
        names = ("status", "conclusion", "title", "workflow", "branch", "event", "number", "created_at")
        print("\t".join(str(run[name]) for name in names))


def run_cancel(server: GitHubServer, actor: Actor, arguments: Sequence[str]) -> None:
    """Cancel a workflow run."""
    given = read_arguments(arguments, "", "", SHORT, 1)
    server.cancel_run(actor, given.number())
    print("✓ Request to cancel workflow submitted.")


def run_rerun(server: GitHubServer, actor: Actor, arguments: Sequence[str]) -> None:
    """Run a workflow run again. `--failed` runs all jobs here; on GitHub, only the failed ones."""
    from laptop.github.runner.run_records import requeue

    given = read_arguments(arguments, "", "--failed", SHORT, 1)
    actor.need("write", "actions")
    with server.change() as state:
        requeue(server, state, given.number(), lambda run: None)
    print(f"✓ Requested rerun of run {given.number()}")


def run_view(server: GitHubServer, actor: Actor, arguments: Sequence[str]) -> None:
    """Show a workflow run, or its logs."""
    given = read_arguments(arguments, "--json --jq", "--log", LIST_SHORT, 1)
    actor.need("read", "actions")
    run = next((run for run in server.runs() if run["number"] == given.number()), None)
    if run is None:
        raise RequestDeniedError(404, "Not Found")
    if not given.has("--log"):
        print_json(pick_fields(run_fields(server, run), given.one("--json")), given)
        return
    for job in server.run_jobs(run["number"]):
        for line in Path(job["log"]).read_text(encoding="utf-8").splitlines() if job["log"] else ():
            print(f"{job['name']}\t{line}")
