"""Run the workflows that events start.

Events and runs are in the server's state. Several runner processes can share one repository, and a killed runner loses
nothing: the next runner closes its runs and kills their processes.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

from laptop.github.expressions.evaluator import EvaluationScope
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.github_state import State, take_number
from laptop.github.forge.repository_settings import RepositorySettings
from laptop.github.forge.vault import Vault
from laptop.github.forge.webhook_event import WebhookEvent
from laptop.github.process_tracking import identity, is_alive, kill_tracked
from laptop.github.runner.concurrency import Slot, may_run
from laptop.github.runner.job_context import LANGUAGE, RunnerMachine
from laptop.github.runner.results import WorkflowRun
from laptop.github.runner.run_execution import RunExecution, RunnerContext
from laptop.github.runner.run_records import (
    Record,
    close_record,
    enter_group,
    evaluate_group,
    github_context,
    inputs_context,
    new_record,
    read_jobs_so_far,
    requeue,
    title_of,
    update_slot,
)
from laptop.github.runner.triggering import is_triggered
from laptop.github.workflow.definition import Workflow
from laptop.github.workflow.workflow_file import read_workflow
from pipelines.declarations.errors import MlopsError

_POLL_SECONDS = 0.03
"""Time between checks of the state."""


class WorkflowRunner:
    """Runs the workflows of one repository.

    Args:
        server: the repository.
        machine: settings for every job.
        workers: how many jobs run at a time; the number of cores if None.
    """

    def __init__(self, server: GitHubServer, machine: RunnerMachine | None = None, workers: int | None = None) -> None:
        self.server = server
        self.vault = Vault(server.folder)
        self.context = RunnerContext(
            server=server,
            machine=machine or RunnerMachine(),
            vault=self.vault,
            workers=threading.BoundedSemaphore(workers or os.cpu_count() or 1),
            owner=identity(os.getpid()),
            on_closed=lambda run: self._closed.append(run),
        )
        self._wake = threading.Event()
        self._executions: dict[int, RunExecution] = {}
        self._closed: list[WorkflowRun] = []

    def pump(self) -> list[WorkflowRun]:
        """Run all queued work, and the work that it starts, until none is left.

        Returns:
            The runs that ended here, by number.
        """
        self._closed = []
        self._work(lambda: not self._executions and not self._has_work())
        return sorted(self._closed, key=lambda run: run.number)

    def serve(self, stop: threading.Event) -> None:
        """Run workflows as events arrive until `stop` is set; then cancel the runs in progress."""
        self._work(stop.is_set)

    def _work(self, finished: Callable[[], bool]) -> None:
        machine = self.context.machine
        if machine.command_forks is not None:
            machine.command_forks.start({"LANG": LANGUAGE, **machine.environ})
        threads: list[threading.Thread] = []
        seen: tuple[int, int, int] | None = None
        try:
            while True:
                if self.server.state.version() != seen or self._wake.is_set() or self.server.state.peek()["moves"]:
                    self._wake.clear()
                    for execution in self._claim_runs():
                        thread = threading.Thread(target=self._execute, args=(execution,))
                        threads.append(thread)
                        thread.start()
                    seen = self.server.state.version()
                if finished():
                    break
                self._wake.wait(_POLL_SECONDS)
                if self._has_work():
                    self._close_dead_runs()
        finally:
            for execution in list(self._executions.values()):
                execution.cancelled.set()
            for thread in threads:
                thread.join()

    def rerun(self, number: int) -> None:
        """Queue another attempt of a run: all its jobs, on the same commit.

        Raises:
            MlopsError: there is no such run, or it has not ended.
        """
        with self.server.change() as state:
            self._recover(state)
            requeue(self.server, state, number, lambda run: self._closed.append(run))

    # --- the state ---

    def _has_work(self) -> bool:
        state = self.server.state.peek()
        queued = any(run["status"] == "queued" for run in state["runs"].values())
        return bool(state["events"] or state["moves"]) or queued

    def _close_dead_runs(self) -> None:
        runs = self.server.state.peek()["runs"].values()
        if any(run["status"] == "in_progress" and not is_alive(run["owner"]) for run in runs):
            with self.server.change() as state:
                self._recover(state)

    def _claim_runs(self) -> list[RunExecution]:
        """Turn events into runs, pass on requests to stop, and claim the runs whose turn it is."""
        claimed: list[RunExecution] = []
        with self.server.change() as state:
            self._recover(state)
            while state["events"]:
                self._start_runs(state, WebhookEvent(**state["events"].pop(0)))
            self._pass_on_stops(state)
            slots = [Slot(**slot) for slot in state["slots"]]
            for record in sorted(state["runs"].values(), key=lambda run: int(run["number"])):
                own = next((slot for slot in slots if slot.run == record["number"] and not slot.job), None)
                if record["status"] == "queued" and (own is None or may_run(slots, own)):
                    record |= {"status": "in_progress", "owner": self.context.owner}
                    update_slot(state, own, held=True, owner=self.context.owner)
                    execution = RunExecution(self.context, dict(record))
                    self._executions[record["number"]] = execution
                    claimed.append(execution)
        return claimed

    def _recover(self, state: State) -> None:
        """Close the runs whose runner has died, kill their processes, and free their slots."""
        for record in state["runs"].values():
            if record["status"] == "in_progress" and not is_alive(record["owner"]):
                kill_tracked(record["tracking"])
                for left in (self.server.folder / "work").glob(f"{record['number']}-*"):
                    shutil.rmtree(left, ignore_errors=True)
                problem = "the runner was killed during the run; rerun it"
                jobs = read_jobs_so_far(self.server, record)
                close_record(self.server, state, record, "failure", (problem,), jobs)

    def _pass_on_stops(self, state: State) -> None:
        for number, execution in self._executions.items():
            if state["runs"][str(number)]["cancel"]:
                execution.cancelled.set()
            for slot in state["slots"]:
                if slot["run"] == number and slot["job"] and slot["stopping"]:
                    execution.stop_job(slot["job"])

    # --- from an event to runs ---

    def _start_runs(self, state: State, event: WebhookEvent) -> None:
        settings = RepositorySettings.from_json(state["settings"])
        if not settings.actions_enabled:
            return
        for path, content in self.server.workflow_files(event.sha).items():
            if path in settings.disabled_workflows:
                continue
            try:
                workflow = read_workflow(content, path)
                if not is_triggered(workflow, event, lambda: self.server.changed_paths(state, event)):
                    continue
                scope = EvaluationScope(self._early_contexts(state, workflow, event), {})
                title, group = title_of(workflow, event, scope), evaluate_group(workflow.concurrency, scope)
            except MlopsError as error:
                if not event.workflow or event.workflow == path:
                    record = new_record(self.server, state, event, path=path, workflow=path, title=path)
                    self._closed.append(close_record(self.server, state, record, "startup_failure", (str(error),)))
                continue
            record = new_record(self.server, state, event, path=path, workflow=workflow.name, title=title)
            record["group"] = group
            self._enter_group(state, record)

    def _enter_group(self, state: State, record: Record) -> None:
        if record["group"] is not None:
            slot = Slot(take_number(state, "slot"), record["group"]["name"], record["number"], "")
            enter_group(self.server, state, slot, record["group"], self.context.on_closed)

    def _early_contexts(self, state: State, workflow: Workflow, event: WebhookEvent) -> dict[str, Any]:
        number = state["next"]["run"]
        return {
            "github": github_context(state["repository"], workflow, event, number, 1),
            "inputs": inputs_context(workflow, event),
            "vars": {} if event.from_fork else self.vault.variables(""),
        }

    # --- one run ---

    def _execute(self, execution: RunExecution) -> None:
        record, started = execution.record, time.monotonic()
        try:
            conclusion, problems = execution.execute()
        except MlopsError as error:
            conclusion, problems = "failure", (str(error),)
        except Exception as error:  # a defect of the runner must not leave the run in progress
            conclusion, problems = "failure", (f"the runner failed: {type(error).__name__}: {error}",)
        try:
            with self.server.change() as state:
                current = state["runs"][str(record["number"])]
                seconds = time.monotonic() - started
                run = close_record(self.server, state, current, conclusion, problems, execution.results(), seconds)
                self._closed.append(run)
        except MlopsError:
            if self.server.state.exists():
                raise
            # The laptop was stopped; `_work` reports it.
        self._executions.pop(record["number"])
        self._wake.set()
