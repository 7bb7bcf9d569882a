"""Run the workflows that events start: read the files as committed, order the jobs, keep what they came to.

Events and runs are in the forge's state, so several runner processes can share one repository and a killed one loses
nothing: whoever looks next marks its runs and ends what they left running.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from laptop.github.access import BOT, Actor, issue_token, revoke_token
from laptop.github.commands import Annotation
from laptop.github.concurrency import Slot, arrive, may_run
from laptop.github.events import SERVER, Event, starts
from laptop.github.expressions import Scope, asks_status, evaluate, render, to_text, truthy
from laptop.github.forge import Forge, take, timestamp
from laptop.github.job import JobExecution, Machine, Plan
from laptop.github.matrix import legs
from laptop.github.processes import alive, end_tracked, identity
from laptop.github.reading import read_workflow
from laptop.github.results import JobResult, Run
from laptop.github.store import State
from laptop.github.vault import Vault
from laptop.github.workflow import Concurrency, Job, Workflow
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.files import write_atomically

_WATCH = 0.03
"""Seconds between looks at the state while runs go on."""


class Runner:
    """Runs workflows for one forge.

    Args:
        forge: the repository.
        machine: what every job gets.
        workers: how many jobs run at a time; the number of cores when None.
    """

    def __init__(self, forge: Forge, machine: Machine | None = None, workers: int | None = None) -> None:
        self.forge = forge
        self.machine = machine or Machine()
        self.vault = Vault(forge.folder)
        self.places = threading.BoundedSemaphore(workers or os.cpu_count() or 1)
        self.owner = identity(os.getpid())
        self._woken = threading.Event()
        self._going: dict[int, _RunExecution] = {}
        self._done: list[Run] = []

    def pump(self) -> list[Run]:
        """Run everything that waits, and everything that this starts, until nothing is left to do.

        Returns:
            The runs that ended here, in the order of their numbers.
        """
        self._done = []
        self._work(lambda: not self._going and not self._waiting())
        return sorted(self._done, key=lambda run: run.number)

    def serve(self, stop: threading.Event) -> None:
        """Run whatever comes up until `stop` is set; what is under way then is cancelled."""
        self._work(stop.is_set)

    def _work(self, finished: Callable[[], bool]) -> None:
        threads: list[threading.Thread] = []
        seen: tuple[int, int] | None = None
        try:
            while True:
                if self.forge.store.version() != seen or self._woken.is_set() or self.forge.store.look()["moves"]:
                    self._woken.clear()
                    for execution in self._advance():
                        thread = threading.Thread(target=self._execute, args=(execution,))
                        threads.append(thread)
                        thread.start()
                    seen = self.forge.store.version()
                if finished():
                    break
                self._woken.wait(_WATCH)
                if self._waiting():
                    self._recover_if_needed()
        finally:
            for execution in list(self._going.values()):
                execution.cancelled.set()
            for thread in threads:
                thread.join()

    def rerun(self, number: int) -> None:
        """Queue another attempt of a run, of all its jobs, on the same commit.

        Raises:
            MlopsError: there is no such run, or it goes on.
        """
        with self.forge.change() as state:
            self._recover(state)
            record = state["runs"].get(str(number))
            if record is None:
                raise MlopsError(f"there is no run {number}")
            if record["status"] != "completed":
                raise MlopsError(f"run {number} is {record['status']}", fix="wait until it has ended")
            record |= {"attempt": record["attempt"] + 1, "status": "queued", "conclusion": "", "owner": ""}
            record |= {"tracking": uuid.uuid4().hex, "cancel": False}
            self._enter_group(state, record)

    # --- the state ---------------------------------------------------------------------------------------------------

    def _waiting(self) -> bool:
        state = self.forge.store.look()
        return bool(state["events"] or state["moves"]) or any(
            run["status"] == "queued" for run in state["runs"].values()
        )

    def _recover_if_needed(self) -> None:
        runs = self.forge.store.look()["runs"].values()
        if any(run["status"] == "in_progress" and not alive(run["owner"]) for run in runs):
            with self.forge.change() as state:
                self._recover(state)

    def _advance(self) -> list[_RunExecution]:
        """Turn events into runs, tell runs to stop, and take the runs whose turn it is."""
        claimed: list[_RunExecution] = []
        with self.forge.change() as state:
            self._recover(state)
            while state["events"]:
                self._start_runs(state, Event(**state["events"].pop(0)))
            self._pass_on_stops(state)
            slots = [Slot(**slot) for slot in state["slots"]]
            for record in sorted(state["runs"].values(), key=lambda run: int(run["number"])):
                mine = next((slot for slot in slots if slot.run == record["number"] and not slot.job), None)
                if record["status"] == "queued" and (mine is None or may_run(slots, mine)):
                    record |= {"status": "in_progress", "owner": self.owner}
                    _update_slot(state, mine, held=True, owner=self.owner)
                    execution = _RunExecution(self, dict(record))
                    self._going[record["number"]] = execution
                    claimed.append(execution)
        return claimed

    def _recover(self, state: State) -> None:
        """Mark the runs whose runner is gone, end what they left running, and free their places."""
        for record in state["runs"].values():
            if record["status"] == "in_progress" and not alive(record["owner"]):
                end_tracked(record["tracking"])
                for left in (self.forge.folder / "work").glob(f"{record['number']}-*"):
                    shutil.rmtree(left, ignore_errors=True)
                problem = "the runner was killed in the middle; run it again with rerun"
                self._close(state, record, "failure", (problem,), self._jobs_so_far(record))

    def _jobs_so_far(self, record: Mapping[str, Any]) -> tuple[JobResult, ...]:
        path = self.forge.run_folder(record["number"]) / "run.json"
        if not path.exists():
            return ()
        run = Run.from_json(json.loads(path.read_bytes()))
        return run.jobs if run.attempt == record["attempt"] else ()

    def _close(
        self,
        state: State,
        record: dict[str, Any],
        conclusion: str,
        problems: tuple[str, ...] = (),
        jobs: tuple[JobResult, ...] = (),
        seconds: float = 0.0,
    ) -> Run:
        number = record["number"]
        record |= {"status": "completed", "conclusion": conclusion, "owner": ""}
        state["slots"] = [slot for slot in state["slots"] if slot["run"] != number]
        state["tokens"] = {key: token for key, token in state["tokens"].items() if token["run"] != number}
        for checks in state["checks"].values():
            for check in checks.values():
                if check["run"] == number and not check["conclusion"]:
                    check["conclusion"] = "cancelled" if conclusion == "cancelled" else "failure"
        run = _run(self.forge, record, jobs=jobs, problems=problems, seconds=seconds)
        run.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(run.folder / "run.json", json.dumps(run.to_json()))
        return run

    def _pass_on_stops(self, state: State) -> None:
        for number, execution in self._going.items():
            if state["runs"][str(number)]["cancel"]:
                execution.cancelled.set()
            for slot in state["slots"]:
                if slot["run"] == number and slot["job"] and slot["stopping"]:
                    execution.stop_job(slot["job"])

    # --- from an event to runs ---------------------------------------------------------------------------------------

    def _start_runs(self, state: State, event: Event) -> None:
        for path in self.forge.workflow_paths(event.sha):
            content = self.forge.file(event.sha, path) or b""
            try:
                workflow = read_workflow(content, path)
                if not starts(workflow, event, lambda: self.forge.changed_in(state, event)):
                    continue
                scope = Scope(self._early_contexts(state, workflow, event), {})
                title, group = _title(workflow, event, scope), _group(workflow.concurrency, scope)
            except MlopsError as error:
                if not event.workflow or event.workflow == path:
                    record = self._record(state, event, path, path, path)
                    self._done.append(self._close(state, record, "startup_failure", (str(error),)))
                continue
            record = self._record(state, event, path, workflow.name, title)
            record["group"] = group
            self._enter_group(state, record)

    def _record(self, state: State, event: Event, path: str, name: str, title: str) -> dict[str, Any]:
        number = take(state, "run")
        folder = self.forge.run_folder(number)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(folder / "event.json", json.dumps(event.to_json()))
        record = {
            "number": number,
            "attempt": 1,
            "path": path,
            "workflow": name,
            "title": title,
            "event": event.name,
            "action": event.action,
            "ref": event.ref,
            "sha": event.sha,
            "branch": event.head_ref or event.ref_name,
            "head_sha": event.head_sha or event.sha,
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

    def _enter_group(self, state: State, record: dict[str, Any]) -> None:
        if record["group"] is not None:
            slot = Slot(take(state, "slot"), record["group"]["name"], record["number"], "")
            self.enter(state, slot, queue=record["group"]["queue"], cancel=record["group"]["cancel"])

    def enter(self, state: State, slot: Slot, *, queue: str, cancel: bool) -> None:
        """Put a slot into its group's queue, and do to the others what that asks for."""
        slots = [Slot(**item) for item in state["slots"]]
        arrival = arrive(slots, slot, queue=queue, cancel_in_progress=cancel)
        state["slots"].append(slot.to_json())
        for dropped in arrival.dropped:
            state["slots"] = [item for item in state["slots"] if item["id"] != dropped.id]
            if not dropped.job:
                why = f"another run took its place in the group {slot.group!r}"
                self._done.append(self._close(state, state["runs"][str(dropped.run)], "cancelled", (why,)))
        for stopped in arrival.stopped:
            _update_slot(state, stopped, stopping=True)
            if not stopped.job:
                state["runs"][str(stopped.run)]["cancel"] = True

    def _early_contexts(self, state: State, workflow: Workflow, event: Event) -> dict[str, Any]:
        number = state["next"]["run"]
        return {
            "github": github_context(state["repository"], workflow, event, number, 1),
            "inputs": _inputs(workflow, event),
            "vars": {} if event.from_fork else self.vault.variables(""),
        }

    # --- one run -----------------------------------------------------------------------------------------------------

    def _execute(self, execution: _RunExecution) -> None:
        record, started = execution.record, time.monotonic()
        try:
            conclusion, problems = execution.execute()
        except MlopsError as error:
            conclusion, problems = "failure", (str(error),)
        except Exception as error:  # a defect of the runner must not leave the run hanging
            conclusion, problems = "failure", (f"the runner failed: {type(error).__name__}: {error}",)
        with self.forge.change() as state:
            current = state["runs"][str(record["number"])]
            seconds = time.monotonic() - started
            self._done.append(self._close(state, current, conclusion, problems, execution.results(), seconds))
        self._going.pop(record["number"])
        self._woken.set()


def _update_slot(state: State, slot: Slot | None, **values: Any) -> None:
    for item in state["slots"]:
        if slot is not None and item["id"] == slot.id:
            item |= values


def _run(
    forge: Forge,
    record: Mapping[str, Any],
    *,
    jobs: tuple[JobResult, ...],
    problems: tuple[str, ...] = (),
    seconds: float = 0.0,
) -> Run:
    names = (
        *("number", "attempt", "workflow", "path", "title", "event", "action", "ref", "sha", "head_sha", "actor"),
        *("status", "conclusion"),
    )
    values = {name: record[name] for name in names}
    return Run(**values, folder=forge.run_folder(record["number"]), jobs=jobs, problems=problems, seconds=seconds)


def _group(concurrency: Concurrency | None, scope: Scope) -> dict[str, Any] | None:
    if concurrency is None:
        return None
    name = to_text(render(concurrency.group, scope)).lower()
    if not name:
        raise MlopsError("the concurrency group is empty for this event")
    return {"name": name, "queue": concurrency.queue, "cancel": truthy(render(concurrency.cancel_in_progress, scope))}


def _title(workflow: Workflow, event: Event, scope: Scope) -> str:
    if workflow.run_name is not None and (title := to_text(render(workflow.run_name, scope)).strip()):
        return title
    if event.name == "pull_request":
        return str(event.payload["pull_request"]["title"])
    if event.name == "push":
        return str(event.payload["head_commit"]["message"]).split("\n", 1)[0]
    return workflow.name


def _inputs(workflow: Workflow, event: Event) -> dict[str, Any]:
    """The `inputs` context: as dispatched, with booleans as booleans."""
    if event.name != "workflow_dispatch":
        return {}
    given = event.payload["inputs"]
    kinds = {item.name: item.kind for item in workflow.triggers["workflow_dispatch"].inputs}
    return {name: value == "true" if kinds.get(name) == "boolean" else value for name, value in given.items()}


def github_context(repository: str, workflow: Workflow, event: Event, number: int, attempt: int) -> dict[str, Any]:
    """The `github` context, but for what only a job knows (`workspace`, `token`, …)."""
    return {
        "actor": event.actor,
        "api_url": f"{SERVER}/api/v3",
        "base_ref": event.base_ref,
        "event": event.payload,
        "event_name": event.name,
        "graphql_url": f"{SERVER}/api/graphql",
        "head_ref": event.head_ref,
        "ref": event.ref,
        "ref_name": event.ref_name,
        "ref_protected": event.ref == "refs/heads/main",
        "ref_type": "tag" if event.ref.startswith("refs/tags/") else "branch",
        "repository": repository,
        "repository_owner": repository.split("/")[0],
        "run_attempt": str(attempt),
        "run_id": str(number),
        "run_number": str(number),
        "server_url": SERVER,
        "sha": event.sha,
        "triggering_actor": event.actor,
        "workflow": workflow.name,
        "workflow_ref": f"{repository}/{workflow.path}@{event.ref}",
        "workflow_sha": event.sha,
    }


@dataclass
class _Leg:
    """One leg of a job's matrix, or the job itself."""

    job: Job
    values: Mapping[str, Any]
    index: int
    total: int
    name: str
    tolerated: bool
    fail_fast: bool
    stop: threading.Event = field(default_factory=threading.Event)
    result: JobResult | None = None


@dataclass(frozen=True)
class _Ended:
    """What the jobs that need a job see of it; `stands` is its result for their conditions."""

    result: str
    outputs: Mapping[str, str]


class _Either:
    """Set when one of two events is."""

    def __init__(self, *events: threading.Event) -> None:
        self._events = events

    def is_set(self) -> bool:
        return any(event.is_set() for event in self._events)


class _RunExecution:
    """Runs the jobs of one run in the order of their `needs`, as many at a time as there are places."""

    def __init__(self, runner: Runner, record: dict[str, Any]) -> None:
        self.runner = runner
        self.forge = runner.forge
        self.record = record
        self.cancelled = threading.Event()
        self.ended: dict[str, _Ended] = {}
        self.legs: dict[str, list[_Leg]] = {}
        self.skipped: dict[str, JobResult] = {}
        self.order: list[str] = []
        self._changed = threading.Condition()

    def results(self) -> tuple[JobResult, ...]:
        """The jobs that have ended, in the order of the file."""
        found: list[JobResult] = []
        for name in self.order:
            found += [self.skipped[name]] if name in self.skipped else []
            found += [leg.result for leg in self.legs.get(name, []) if leg.result is not None]
        return tuple(found)

    def stop_job(self, name: str) -> None:
        """Stop the leg with this name."""
        for found in self.legs.values():
            for leg in found:
                if leg.name == name:
                    leg.stop.set()

    def execute(self) -> tuple[str, tuple[str, ...]]:
        """Run every job to its end, and return the run's conclusion and problems."""
        record = self.record
        folder = self.forge.run_folder(record["number"])
        self.event = Event(**json.loads((folder / "event.json").read_bytes()))
        self.workflow = read_workflow(self.forge.file(self.event.sha, record["path"]) or b"", record["path"])
        self.order = list(self.workflow.jobs)
        if record["attempt"] > 1:
            shutil.rmtree(folder / "artifacts", ignore_errors=True)
        threads: list[threading.Thread] = []
        waiting = dict(self.workflow.jobs)
        with self._changed:
            while len(self.ended) < len(self.order):
                ready = [name for name, job in waiting.items() if all(need in self.ended for need in job.needs)]
                for name in ready:
                    threads += self._begin(waiting.pop(name))
                if not ready:
                    self._changed.wait()
        for thread in threads:
            thread.join()
        conclusions = [job.conclusion for job in self.results() if not self._may_fail(job)]
        for conclusion in ("failure", "cancelled"):
            if conclusion in conclusions:
                return conclusion, ()
        return ("skipped" if conclusions and set(conclusions) == {"skipped"} else "success"), ()

    def _may_fail(self, result: JobResult) -> bool:
        return self.ended[result.id].result == "success" and result.conclusion == "failure"

    # --- a job -------------------------------------------------------------------------------------------------------

    def _begin(self, job: Job) -> list[threading.Thread]:
        """Skip the job, or start its legs. Called with the condition held."""
        try:
            wanted = self._wanted(job)
            found = self._expand(job) if wanted else []
        except MlopsError as error:
            annotation = Annotation("error", str(error))
            self._leave_out(JobResult(job.id, job.id, "failure", annotations=(annotation,)), "failure")
            return []
        if not found:
            result = "cancelled" if self.cancelled.is_set() and not wanted else "skipped"
            self._leave_out(JobResult(job.id, self._name(job, {}, 1), result), result)
            return []
        self.legs[job.id] = found
        most = None if job.strategy is None else job.strategy.max_parallel
        places = threading.BoundedSemaphore(len(found) if most is None else int(render(most, self._scope(job))))
        threads = [threading.Thread(target=self._run_leg, args=(leg, places)) for leg in found]
        for thread in threads:
            thread.start()
        return threads

    def _leave_out(self, result: JobResult, stands: str) -> None:
        self.skipped[result.id] = result
        self.ended[result.id] = _Ended(stands, {})
        with self.forge.change() as state:
            self._check(state, result.name, result.conclusion)
        self._save()

    def _wanted(self, job: Job) -> bool:
        """The job's `if`: all jobs before it, near and far, must have succeeded unless it asks otherwise."""
        before = _ancestors(self.workflow, job)
        results = [self.ended[name].result for name in before]
        fine = all(result == "success" for result in results) and not self.cancelled.is_set()
        functions: dict[str, Callable[..., Any]] = {
            "success": lambda: fine,
            "failure": lambda: "failure" in results,
            "cancelled": self.cancelled.is_set,
            "always": lambda: True,
        }
        if job.condition is None:
            return fine
        scope = Scope(self._scope(job).contexts, functions)
        return (asks_status(job.condition) or fine) and truthy(evaluate(job.condition, scope))

    def _expand(self, job: Job) -> list[_Leg]:
        found: list[dict[str, Any]] = [{}]
        fail_fast = True
        if job.strategy is not None:
            found = legs(job.strategy, self._scope(job))
            fail_fast = truthy(render(job.strategy.fail_fast, self._scope(job)))
        result = []
        for index, values in enumerate(found):
            scope = self._scope(job, values, index=index, total=len(found))
            tolerated = truthy(render(job.continue_on_error, scope))
            name = self._name(job, values, len(found))
            result.append(_Leg(job, values, index, len(found), name, tolerated, fail_fast))
        return result

    def _name(self, job: Job, values: Mapping[str, Any], total: int) -> str:
        suffix = f" ({', '.join(to_text(value) for value in values.values())})" if values else ""
        if job.name is None:
            return job.id + suffix
        name = to_text(render(job.name, self._scope(job, values, total=total)))
        return name if "matrix." in job.name.text else name + suffix

    def _scope(self, job: Job, values: Mapping[str, Any] | None = None, *, index: int = 0, total: int = 1) -> Scope:
        return Scope(self._contexts(job, values or {}, "", index, total), {})

    def _contexts(
        self, job: Job, values: Mapping[str, Any], environment: str, index: int, total: int
    ) -> dict[str, Any]:
        record, vault = self.record, self.runner.vault
        repository = self.forge.repository
        strategy: dict[str, Any] = {"job-index": index, "job-total": total, "fail-fast": True, "max-parallel": total}
        if job.strategy is not None and job.strategy.max_parallel is not None:
            strategy["max-parallel"] = job.strategy.max_parallel.text
        return {
            "github": github_context(repository, self.workflow, self.event, record["number"], record["attempt"]),
            "needs": {
                name: {"result": self.ended[name].result, "outputs": dict(self.ended[name].outputs)}
                for name in job.needs
            },
            "inputs": _inputs(self.workflow, self.event),
            "vars": {} if self.event.from_fork else vault.variables(environment),
            "secrets": {} if self.event.from_fork else vault.secrets(environment),
            "matrix": values or None,
            "strategy": strategy,
        }

    # --- a leg -------------------------------------------------------------------------------------------------------

    def _run_leg(self, leg: _Leg, places: threading.BoundedSemaphore) -> None:
        try:
            with places:
                leg.result = self._perform(leg)
        except MlopsError as error:
            leg.result = JobResult(leg.job.id, leg.name, "failure", annotations=(Annotation("error", str(error)),))
        except Exception as error:  # a defect of the runner must not leave the run hanging
            what = Annotation("error", f"the runner failed: {type(error).__name__}: {error}")
            leg.result = JobResult(leg.job.id, leg.name, "failure", annotations=(what,))
        finally:
            with self._changed:
                self._leg_ended(leg)
                self._changed.notify_all()

    def _leg_ended(self, leg: _Leg) -> None:
        found = self.legs[leg.job.id]
        results = [other.result for other in found]
        if leg.result is not None and leg.result.conclusion == "failure" and leg.fail_fast and not leg.tolerated:
            for other in found:
                if other.result is None:
                    other.stop.set()
        if all(result is not None for result in results):
            bad = {leg.result.conclusion for leg in found if leg.result is not None and not leg.tolerated}
            result = next((name for name in ("failure", "cancelled") if name in bad), "success")
            outputs: dict[str, str] = {}
            for result_of_leg in results:
                outputs |= dict(result_of_leg.outputs) if result_of_leg is not None else {}
            self.ended[leg.job.id] = _Ended(result, outputs)
        self._save()

    def _perform(self, leg: _Leg) -> JobResult:
        stop = _Either(self.cancelled, leg.stop)
        scope = self._scope(leg.job, leg.values, index=leg.index, total=leg.total)
        slot = self._enter_group(leg, scope)
        if slot is not None and not self._await_turn(slot, stop):
            return self._not_run(leg, slot)
        with self.runner.places:
            if stop.is_set() and leg.job.condition is None:
                return self._not_run(leg, slot)
            plan, token = self._plan(leg, scope)
            execution = JobExecution(plan, self.forge, self.runner.machine, stop)
            try:
                result = execution.run()
            finally:
                with self.forge.change() as state:
                    revoke_token(state, token)
                    _free(state, slot)
        with self.forge.change() as state:
            self._check(state, leg.name, result.conclusion)
        return result

    def _not_run(self, leg: _Leg, slot: Slot | None) -> JobResult:
        with self.forge.change() as state:
            _free(state, slot)
            self._check(state, leg.name, "cancelled")
        return JobResult(leg.job.id, leg.name, "cancelled")

    def _plan(self, leg: _Leg, scope: Scope) -> tuple[Plan, str]:
        record, job = self.record, leg.job
        environment = "" if job.environment is None else to_text(render(job.environment.name, scope))
        settings = self.forge.settings
        granted = job.permissions if job.permissions is not None else self.workflow.permissions
        if granted is None:
            granted = {"contents": "write" if settings.write_by_default else "read", "packages": "read"}
            granted |= {"pull-requests": "write", "issues": "write"} if settings.write_by_default else {}
        actor = Actor(BOT, "job", granted, record["number"], record["actor"])
        with self.forge.change() as state:
            token = issue_token(state, actor)
            self._check(state, leg.name, "")
        contexts = self._contexts(job, leg.values, environment, leg.index, leg.total)
        contexts["secrets"] = {**contexts["secrets"], "GITHUB_TOKEN": token}
        slug = job.id if job.strategy is None else f"{job.id}.{leg.index}"
        folder = self.forge.run_folder(record["number"])
        attempt = f"attempt-{record['attempt']}"
        plan = Plan(
            number=record["number"],
            attempt=record["attempt"],
            workflow=self.workflow,
            job=job,
            name=leg.name,
            event=self.event,
            contexts=contexts,
            actor=actor,
            token=token,
            environment=environment,
            folder=folder / attempt / slug,
            work=self.forge.folder / "work" / f"{record['number']}-{record['attempt']}-{slug}",
            artifacts=folder / "artifacts",
            tracking=f"{record['tracking']}.{slug}.",
        )
        return plan, token

    def _enter_group(self, leg: _Leg, scope: Scope) -> Slot | None:
        group = _group(leg.job.concurrency, scope)
        if group is None:
            return None
        own = self.record["group"]
        if own is not None and own["name"] == group["name"]:
            raise MlopsError(
                f"the job {leg.name} would wait for its own run in the concurrency group {group['name']!r}"
            )
        with self.forge.change() as state:
            number = take(state, "slot")
            slot = Slot(number, group["name"], self.record["number"], leg.name, owner=self.runner.owner)
            self.runner.enter(state, slot, queue=group["queue"], cancel=group["cancel"])
        return slot

    def _await_turn(self, slot: Slot, stop: _Either) -> bool:
        """Wait for the slot's turn; False when it was dropped or the job was stopped."""
        while not stop.is_set():
            slots = [Slot(**item) for item in self.forge.store.look()["slots"]]
            if all(other.id != slot.id for other in slots):
                return False
            if may_run(slots, slot):
                with self.forge.change() as state:
                    _update_slot(state, slot, held=True)
                return True
            time.sleep(_WATCH)
        return False

    def _check(self, state: State, name: str, conclusion: str) -> None:
        """Report the job as a check on the commit."""
        checks = state["checks"].setdefault(self.record["head_sha"], {})
        checks[name] = {"conclusion": conclusion, "workflow": self.record["workflow"], "run": self.record["number"]}

    def _save(self) -> None:
        """Keep what is known so far, so that a kill leaves the logs' index."""
        run = _run(self.forge, self.record, jobs=self.results())
        write_atomically(run.folder / "run.json", json.dumps(run.to_json()))


def _free(state: State, slot: Slot | None) -> None:
    state["slots"] = [item for item in state["slots"] if slot is None or item["id"] != slot.id]


def _ancestors(workflow: Workflow, job: Job) -> set[str]:
    """All jobs that must end before `job`."""
    found: set[str] = set()
    waiting = list(job.needs)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += workflow.jobs[name].needs
    return found
