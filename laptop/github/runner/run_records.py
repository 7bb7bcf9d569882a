"""Records of workflow runs in the state: create, describe, queue and close them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from laptop.github.expressions.evaluator import EvaluationScope, render
from laptop.github.expressions.loose_values import to_text, truthy
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.github_state import State, take_number, timestamp
from laptop.github.forge.webhook_event import SERVER_URL, WebhookEvent
from laptop.github.runner.concurrency import Slot, arrive
from laptop.github.runner.results import JobResult, WorkflowRun
from laptop.github.workflow.definition import Concurrency, Workflow
from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError

MOST_RERUNS = 50
"""Reruns of one run ("Limits in GitHub Actions")."""

Record = dict[str, Any]
"""A run in the state, as JSON."""


def new_record(
    server: GitHubServer, state: State, event: WebhookEvent, *, path: str, workflow: str, title: str
) -> Record:
    """Add a queued run to the state.

    Args:
        server: keeps the run's folder.
        state: gets the record.
        event: started the run.
        path: the workflow file.
        workflow: the workflow's name.
        title: the run's own name.
    """
    number = take_number(state, "run")
    folder = server.run_folder(number)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(folder / "event.json", json.dumps(event.to_json()))
    record = {
        "number": number,
        "attempt": 1,
        "path": path,
        "workflow": workflow,
        "title": title,
        "event": event.name,
        "action": event.action,
        "ref": event.ref,
        "sha": event.sha,
        "branch": event.head_ref or event.ref_name,
        "head_sha": event.head_sha or event.sha,
        "head_repository": _head_repository(server, event),
        "actor": event.actor,
        "status": "queued",
        "conclusion": "",
        "created_at": timestamp(),
        "owner": "",
        "cancel": False,
        "tracking": uuid.uuid4().hex,
        "group": None,
    }
    state["runs"][str(number)] = record
    return record


def _head_repository(server: GitHubServer, event: WebhookEvent) -> str:
    """Return the full name of the repository that has the commit of an event: a fork's, for its pull request."""
    pull = event.payload.get("pull_request") if event.from_fork else None
    return str(pull["head"]["repo"]["full_name"]) if pull is not None else server.full_name


def close_record(
    server: GitHubServer,
    state: State,
    record: Record,
    conclusion: str,
    problems: tuple[str, ...] = (),
    jobs: tuple[JobResult, ...] = (),
    seconds: float = 0.0,
) -> WorkflowRun:
    """Complete a run: free its slots, revoke its tokens, end its checks, and write its result."""
    number = record["number"]
    record |= {"status": "completed", "conclusion": conclusion, "owner": ""}
    state["slots"] = [slot for slot in state["slots"] if slot["run"] != number]
    state["tokens"] = {key: token for key, token in state["tokens"].items() if token["run"] != number}
    for checks in state["checks"].values():
        for check in checks.values():
            if check["run"] == number and not check["conclusion"]:
                check["conclusion"] = "cancelled" if conclusion == "cancelled" else "failure"
    return write_result(server, record, jobs=jobs, problems=problems, seconds=seconds)


def write_result(
    server: GitHubServer,
    record: Mapping[str, Any],
    *,
    jobs: tuple[JobResult, ...],
    problems: tuple[str, ...] = (),
    seconds: float = 0.0,
) -> WorkflowRun:
    """Write `run.json` in the run's folder, and return its content."""
    names = (
        *("number", "attempt", "workflow", "path", "title", "event", "action", "ref", "sha", "head_sha", "actor"),
        *("status", "conclusion"),
    )
    values = {name: record[name] for name in names}
    folder = server.run_folder(record["number"])
    run = WorkflowRun(**values, folder=folder, jobs=jobs, problems=problems, seconds=seconds)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(folder / "run.json", json.dumps(run.to_json()))
    return run


def read_jobs_so_far(server: GitHubServer, record: Mapping[str, Any]) -> tuple[JobResult, ...]:
    """Return the jobs that had ended when the runner of a run was killed."""
    path = server.run_folder(record["number"]) / "run.json"
    if not path.exists():
        return ()
    run = WorkflowRun.from_json(json.loads(path.read_bytes()))
    return run.jobs if run.attempt == record["attempt"] else ()


def enter_group(
    server: GitHubServer, state: State, slot: Slot, group: Mapping[str, Any], on_closed: Callable[[WorkflowRun], None]
) -> None:
    """Put a slot into the queue of its concurrency group, and drop or stop others as the group says.

    Args:
        server: keeps the runs' folders.
        state: holds the slots.
        slot: the new slot.
        group: from `evaluate_group`.
        on_closed: called with each run that lost its place in the queue.
    """
    slots = [Slot(**item) for item in state["slots"]]
    arrival = arrive(slots, slot, queue=group["queue"], cancel_in_progress=group["cancel"])
    state["slots"].append(slot.to_json())
    for dropped in arrival.dropped:
        free_slot(state, dropped)
        if not dropped.job:
            why = f"another run took its place in the group {slot.group!r}"
            record = state["runs"][str(dropped.run)]
            on_closed(close_record(server, state, record, "cancelled", (why,)))
    for stopped in arrival.stopped:
        update_slot(state, stopped, stopping=True)
        if not stopped.job:
            state["runs"][str(stopped.run)]["cancel"] = True


def requeue(server: GitHubServer, state: State, number: int, on_closed: Callable[[WorkflowRun], None]) -> None:
    """Queue another attempt of a run, on the same commit.

    Args:
        server: keeps the runs' folders.
        state: holds the runs.
        number: the run.
        on_closed: called with each run that lost its place in the queue.

    Raises:
        MlopsError: there is no such run, it has not ended, or it was run again too often.
    """
    record = state["runs"].get(str(number))
    if record is None:
        raise MlopsError(f"there is no run {number}")
    if record["status"] != "completed":
        raise MlopsError(f"run {number} is {record['status']}", fix="wait until it has ended")
    if record["attempt"] > MOST_RERUNS:
        raise MlopsError(f"run {number} was run again {MOST_RERUNS} times, which is GitHub's limit")
    record |= {"attempt": record["attempt"] + 1, "status": "queued", "conclusion": "", "owner": ""}
    record |= {"tracking": uuid.uuid4().hex, "cancel": False}
    if record["group"] is not None:
        slot = Slot(take_number(state, "slot"), record["group"]["name"], record["number"], "")
        enter_group(server, state, slot, record["group"], on_closed)


def update_slot(state: State, slot: Slot | None, **values: Any) -> None:
    """Change attributes of a slot in the state."""
    for item in state["slots"]:
        if slot is not None and item["id"] == slot.id:
            item |= values


def free_slot(state: State, slot: Slot | None) -> None:
    """Remove a slot from the state."""
    state["slots"] = [item for item in state["slots"] if slot is None or item["id"] != slot.id]


def evaluate_group(concurrency: Concurrency | None, scope: EvaluationScope) -> dict[str, Any] | None:
    """Return `name`, `queue` and `cancel` of a concurrency group, or None if there is no group.

    Raises:
        MlopsError: the name is empty.
    """
    if concurrency is None:
        return None
    name = to_text(render(concurrency.group, scope)).lower()
    if not name:
        raise MlopsError("the concurrency group is empty for this event")
    return {"name": name, "queue": concurrency.queue, "cancel": truthy(render(concurrency.cancel_in_progress, scope))}


def title_of(workflow: Workflow, event: WebhookEvent, scope: EvaluationScope) -> str:
    """Return the name of a run: `run-name`, or GitHub's default for the event."""
    if workflow.run_name is not None and (title := to_text(render(workflow.run_name, scope)).strip()):
        return title
    if event.name == "pull_request":
        return str(event.payload["pull_request"]["title"])
    if event.name == "push":
        return str(event.payload["head_commit"]["message"]).split("\n", 1)[0]
    return workflow.name


def inputs_context(workflow: Workflow, event: WebhookEvent) -> dict[str, Any]:
    """Return the `inputs` context: the dispatched inputs, with booleans as booleans."""
    if event.name != "workflow_dispatch":
        return {}
    given = event.payload["inputs"]
    kinds = {item.name: item.kind for item in workflow.triggers["workflow_dispatch"].inputs}
    return {name: value == "true" if kinds.get(name) == "boolean" else value for name, value in given.items()}


def github_context(
    full_name: str, workflow: Workflow, event: WebhookEvent, number: int, attempt: int
) -> dict[str, Any]:
    """Return the `github` context without the properties of a job (`workspace`, `token`, …)."""
    return {
        "actor": event.actor,
        "api_url": f"{SERVER_URL}/api/v3",
        "base_ref": event.base_ref,
        "event": event.payload,
        "event_name": event.name,
        "graphql_url": f"{SERVER_URL}/api/graphql",
        "head_ref": event.head_ref,
        "ref": event.ref,
        "ref_name": event.ref_name,
        "ref_protected": event.ref == "refs/heads/main",
        "ref_type": "tag" if event.ref.startswith("refs/tags/") else "branch",
        "repository": full_name,
        "repository_owner": full_name.split("/")[0],
        "run_attempt": str(attempt),
        "run_id": str(number),
        "run_number": str(number),
        "server_url": SERVER_URL,
        "sha": event.sha,
        "triggering_actor": event.actor,
        "workflow": workflow.name,
        "workflow_ref": f"{full_name}/{workflow.path}@{event.ref}",
        "workflow_sha": event.sha,
    }
