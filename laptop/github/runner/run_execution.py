"""Run the jobs of one workflow run in the order of their `needs`."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from laptop.github.expressions.evaluator import EvaluationScope, evaluate, render
from laptop.github.expressions.loose_values import to_text, truthy
from laptop.github.expressions.syntax import calls_status_function
from laptop.github.forge.actors import BOT, Actor, issue_token, revoke_token
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.github_state import State, take_number
from laptop.github.forge.vault import Vault
from laptop.github.forge.webhook_event import WebhookEvent
from laptop.github.runner.concurrency import Slot, may_run
from laptop.github.runner.job_context import JobPlan, RunnerMachine
from laptop.github.runner.job_execution import JobExecution
from laptop.github.runner.matrix import legs
from laptop.github.runner.results import JobResult, WorkflowRun
from laptop.github.runner.run_records import (
    Record,
    enter_group,
    evaluate_group,
    free_slot,
    github_context,
    inputs_context,
    update_slot,
    write_result,
)
from laptop.github.runner.workflow_commands import Annotation
from laptop.github.workflow.definition import Job, Workflow
from laptop.github.workflow.workflow_file import read_workflow
from pipelines.declarations.errors import MlopsError

_POLL_SECONDS = 0.03
"""Time between checks of the state while a job waits for its concurrency group."""


@dataclass(frozen=True)
class RunnerContext:
    """State shared by the runs of one runner.

    Attributes:
        server: the repository.
        machine: settings for every job.
        vault: secrets and variables.
        workers: limits how many jobs run at a time.
        owner: identity of the runner's process.
        on_closed: called with each run that another one dropped from its queue.
    """

    server: GitHubServer
    machine: RunnerMachine
    vault: Vault
    workers: threading.BoundedSemaphore
    owner: str
    on_closed: Callable[[WorkflowRun], None]


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
class _JobEnd:
    """Result of a job, as the jobs that need it see it."""

    result: str
    outputs: Mapping[str, str]


class _AnyEvent:
    """Set if any of some events is set."""

    def __init__(self, *events: threading.Event) -> None:
        self._events = events

    def is_set(self) -> bool:
        return any(event.is_set() for event in self._events)


class RunExecution:
    """Runs the jobs of one workflow run.

    Args:
        context: of the runner.
        record: the run.
    """

    def __init__(self, context: RunnerContext, record: Record) -> None:
        self.context = context
        self.server = context.server
        self.record = record
        self.cancelled = threading.Event()
        self.ended: dict[str, _JobEnd] = {}
        self.legs: dict[str, list[_Leg]] = {}
        self.skipped: dict[str, JobResult] = {}
        self.order: list[str] = []
        self._changed = threading.Condition()

    def results(self) -> tuple[JobResult, ...]:
        """Return the jobs that have ended, in the order of the workflow file."""
        found: list[JobResult] = []
        for name in self.order:
            found += [self.skipped[name]] if name in self.skipped else []
            found += [leg.result for leg in self.legs.get(name, []) if leg.result is not None]
        return tuple(found)

    def stop_job(self, name: str) -> None:
        """Stop the job, or the leg of a matrix, with this name."""
        for found in self.legs.values():
            for leg in found:
                if leg.name == name:
                    leg.stop.set()

    def execute(self) -> tuple[str, tuple[str, ...]]:
        """Run every job to its end. Return the conclusion and problems of the run."""
        record = self.record
        folder = self.server.run_folder(record["number"])
        self.event = WebhookEvent(**json.loads((folder / "event.json").read_bytes()))
        content = self.server.workflow_files(self.event.sha).get(record["path"], b"")
        self.workflow = read_workflow(content, record["path"])
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

    # --- a job ---

    def _begin(self, job: Job) -> list[threading.Thread]:
        """Skip the job, or start its legs. The caller holds the condition."""
        try:
            wanted = self._should_run(job)
            found = self._expand(job) if wanted else []
        except MlopsError as error:
            annotation = Annotation("error", str(error))
            self._skip(JobResult(job.id, job.id, "failure", annotations=(annotation,)), "failure")
            return []
        if not found:
            result = "cancelled" if self.cancelled.is_set() and not wanted else "skipped"
            self._skip(JobResult(job.id, self._name(job, {}, 1), result), result)
            return []
        self.legs[job.id] = found
        most = None if job.strategy is None else job.strategy.max_parallel
        places = threading.BoundedSemaphore(len(found) if most is None else int(render(most, self._scope(job))))
        threads = [threading.Thread(target=self._run_leg, args=(leg, places)) for leg in found]
        for thread in threads:
            thread.start()
        return threads

    def _skip(self, result: JobResult, result_for_others: str) -> None:
        self.skipped[result.id] = result
        self.ended[result.id] = _JobEnd(result_for_others, {})
        with self.server.change() as state:
            self._check(state, result.name, result.conclusion)
        self._save()

    def _should_run(self, job: Job) -> bool:
        """Evaluate the job's `if`. By default, all jobs upstream must have succeeded."""
        before = _ancestors(self.workflow, job)
        results = [self.ended[name].result for name in before]
        succeeded = all(result == "success" for result in results) and not self.cancelled.is_set()
        functions: dict[str, Callable[..., Any]] = {
            "success": lambda: succeeded,
            "failure": lambda: "failure" in results,
            "cancelled": self.cancelled.is_set,
            "always": lambda: True,
        }
        if job.condition is None:
            return succeeded
        scope = EvaluationScope(self._scope(job).contexts, functions)
        return (calls_status_function(job.condition) or succeeded) and truthy(evaluate(job.condition, scope))

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

    def _scope(
        self, job: Job, values: Mapping[str, Any] | None = None, *, index: int = 0, total: int = 1
    ) -> EvaluationScope:
        return EvaluationScope(self._contexts(job, values or {}, "", index, total), {})

    def _contexts(
        self, job: Job, values: Mapping[str, Any], environment: str, index: int, total: int
    ) -> dict[str, Any]:
        record, vault = self.record, self.context.vault
        repository = self.server.full_name
        strategy: dict[str, Any] = {"job-index": index, "job-total": total, "fail-fast": True, "max-parallel": total}
        if job.strategy is not None and job.strategy.max_parallel is not None:
            strategy["max-parallel"] = job.strategy.max_parallel.text
        return {
            "github": github_context(repository, self.workflow, self.event, record["number"], record["attempt"]),
            "needs": {
                name: {"result": self.ended[name].result, "outputs": dict(self.ended[name].outputs)}
                for name in job.needs
            },
            "inputs": inputs_context(self.workflow, self.event),
            "vars": {} if self.event.from_fork else vault.variables(environment),
            "secrets": {} if self.event.from_fork else vault.secrets(environment),
            "matrix": values or None,
            "strategy": strategy,
        }

    # --- a leg of its matrix ---

    def _run_leg(self, leg: _Leg, places: threading.BoundedSemaphore) -> None:
        try:
            with places:
                leg.result = self._perform(leg)
        except MlopsError as error:
            leg.result = JobResult(leg.job.id, leg.name, "failure", annotations=(Annotation("error", str(error)),))
        except Exception as error:  # a defect of the runner must not leave the run in progress
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
            self.ended[leg.job.id] = _JobEnd(result, outputs)
        self._save()

    def _perform(self, leg: _Leg) -> JobResult:
        stop = _AnyEvent(self.cancelled, leg.stop)
        scope = self._scope(leg.job, leg.values, index=leg.index, total=leg.total)
        slot = self._enter_group(leg, scope)
        if slot is not None and not self._await_turn(slot, stop):
            return self._cancel(leg, slot)
        with self.context.workers:
            if stop.is_set() and leg.job.condition is None:
                return self._cancel(leg, slot)
            plan, token = self._plan(leg, scope)
            execution = JobExecution(plan, self.server, self.context.machine, stop)
            try:
                result = execution.run()
            finally:
                with self.server.change() as state:
                    revoke_token(state, token)
                    free_slot(state, slot)
        with self.server.change() as state:
            self._check(state, leg.name, result.conclusion)
        return result

    def _cancel(self, leg: _Leg, slot: Slot | None) -> JobResult:
        with self.server.change() as state:
            free_slot(state, slot)
            self._check(state, leg.name, "cancelled")
        return JobResult(leg.job.id, leg.name, "cancelled")

    def _plan(self, leg: _Leg, scope: EvaluationScope) -> tuple[JobPlan, str]:
        record, job = self.record, leg.job
        environment = "" if job.environment is None else to_text(render(job.environment.name, scope))
        settings = self.server.settings
        granted = job.permissions if job.permissions is not None else self.workflow.permissions
        if granted is None:
            granted = {"contents": "write" if settings.write_by_default else "read", "packages": "read"}
            granted |= {"pull-requests": "write", "issues": "write"} if settings.write_by_default else {}
        actor = Actor(BOT, "job", granted, record["number"], record["actor"])
        with self.server.change() as state:
            token = issue_token(state, actor)
            self._check(state, leg.name, "")
        known = settings.find_environment(environment) or environment
        contexts = self._contexts(job, leg.values, known, leg.index, leg.total)
        contexts["secrets"] = {**contexts["secrets"], "GITHUB_TOKEN": token}
        slug = job.id if job.strategy is None else f"{job.id}.{leg.index}"
        folder = self.server.run_folder(record["number"])
        attempt = f"attempt-{record['attempt']}"
        plan = JobPlan(
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
            work=self.server.folder / "work" / f"{record['number']}-{record['attempt']}-{slug}",
            artifacts=folder / "artifacts",
            tracking=f"{record['tracking']}.{slug}.",
        )
        return plan, token

    def _enter_group(self, leg: _Leg, scope: EvaluationScope) -> Slot | None:
        group = evaluate_group(leg.job.concurrency, scope)
        if group is None:
            return None
        own = self.record["group"]
        if own is not None and own["name"] == group["name"]:
            raise MlopsError(
                f"the job {leg.name} waits for its own run: both are in the concurrency group {group['name']!r}"
            )
        with self.server.change() as state:
            number = take_number(state, "slot")
            slot = Slot(number, group["name"], self.record["number"], leg.name, owner=self.context.owner)
            enter_group(self.server, state, slot, group, self.context.on_closed)
        return slot

    def _await_turn(self, slot: Slot, stop: _AnyEvent) -> bool:
        """Wait for the slot's turn. Return False if the slot was dropped or the job was stopped."""
        while not stop.is_set():
            slots = [Slot(**item) for item in self.server.state.peek()["slots"]]
            if all(other.id != slot.id for other in slots):
                return False
            if may_run(slots, slot):
                with self.server.change() as state:
                    update_slot(state, slot, held=True)
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def _check(self, state: State, name: str, conclusion: str) -> None:
        """Report the job as a check of the commit."""
        checks = state["checks"].setdefault(self.record["head_sha"], {})
        checks[name] = {"conclusion": conclusion, "workflow": self.record["workflow"], "run": self.record["number"]}

    def _save(self) -> None:
        """Write the results so far: they survive a kill of the runner."""
        write_result(self.server, self.record, jobs=self.results())


def _ancestors(workflow: Workflow, job: Job) -> set[str]:
    """Return all jobs upstream of a job."""
    found: set[str] = set()
    waiting = list(job.needs)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += workflow.jobs[name].needs
    return found
