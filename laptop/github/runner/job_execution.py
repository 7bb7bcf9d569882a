"""Run one job of a workflow, or one leg of its matrix: its steps in order, in a workspace."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from laptop.github.actions.remote import ActionCall, perform
from laptop.github.expressions.evaluator import EvaluationScope, evaluate, render
from laptop.github.expressions.loose_values import to_text, truthy
from laptop.github.expressions.syntax import Template, calls_status_function
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.repository_creation import MAIN
from laptop.github.process_tracking import kill_tracked
from laptop.github.runner import workflow_commands
from laptop.github.runner.file_hashing import hash_files
from laptop.github.runner.job_context import (
    JobPlan,
    RunnerMachine,
    StepFrame,
    git_config,
    job_github_context,
    runner_context,
    step_environ,
)
from laptop.github.runner.results import JobResult, StepProgress, StepResult
from laptop.github.runner.scripts import StopSignal, run_script
from laptop.github.runner.workflow_commands import Annotation, Listener, Masks
from laptop.github.runner.workspaces import Workspace, lease_workspace
from laptop.github.workflow.composite_action import read_action
from laptop.github.workflow.definition import CompositeAction, Defaults, Step
from laptop.github.workflow.filters import Patterns
from pipelines.declarations.errors import MlopsError

DEEPEST_ACTIONS = 9
"""Levels of composite actions that may use each other; GitHub's limit."""
_BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
_NO_SHELL = ("bash", "-e")
"""GitHub's default without `shell:`, which lacks pipefail."""


class JobExecution:
    """Runs one job.

    Args:
        plan: the job.
        server: the repository.
        machine: settings of the runner for jobs.
        cancelled: cancels the job when set.
    """

    def __init__(self, plan: JobPlan, server: GitHubServer, machine: RunnerMachine, cancelled: StopSignal) -> None:
        self.plan = plan
        self.server = server
        self.machine = machine
        self.cancelled = cancelled
        self.workspace: Workspace
        self.scratch: Path
        self.masks = Masks()
        self.annotations: list[Annotation] = []
        self.summary = ""
        self.exported: dict[str, str] = {}
        self.paths: list[str] = []
        self.job_env: dict[str, str] = {}
        self.endings: list[Callable[[], None]] = []
        self.deadline = time.monotonic()
        self.timed_out = False
        self.log: TextIO
        self._writing = threading.Lock()
        self._lines = 0

    def run(self) -> JobResult:
        """Run the job to completion. Every failure is in the result."""
        reviewed = self.plan.event.ref == f"refs/heads/{MAIN}"
        with (
            lease_workspace(self.server.folder / "workspaces", reviewed=reviewed) as self.workspace,
            # Like /tmp on GitHub's machines: outside of the repository that this folder may be in.
            tempfile.TemporaryDirectory(prefix="mlops-job-", ignore_cleanup_errors=True) as scratch,
        ):
            self.scratch = Path(scratch)
            return self._run_steps()

    def _run_steps(self) -> JobResult:
        plan, started = self.plan, time.monotonic()
        for folder in (plan.folder, plan.temp, plan.home):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.masks.add(plan.token)
        for value in plan.contexts["secrets"].values():
            self.masks.add(value)
        results: list[StepResult] = []
        frame = StepFrame({}, plan.contexts["inputs"], {}, plan.workflow.defaults)
        outputs: dict[str, str] = {}
        url = ""
        path = plan.folder / "log.txt"
        with path.open("w", encoding="utf-8", buffering=1) as self.log:
            try:
                self._set_up(frame)
                for step in plan.job.steps:
                    results.append(self._run_step(step, frame))
                outputs, url = self._read_outputs(frame)
            except MlopsError as error:
                self._annotate(str(error))
                frame.status = "failure"
            finally:
                self._clean_up()
        # As on GitHub, a job that exceeds its time limit is cancelled.
        conclusion = "cancelled" if (self.cancelled.is_set() or self.timed_out) else frame.status
        return JobResult(
            id=plan.job.id,
            name=plan.name,
            conclusion=conclusion,
            seconds=time.monotonic() - started,
            steps=tuple(results),
            outputs=outputs,
            environment=plan.environment,
            url=url,
            annotations=tuple(self.annotations),
            log=path,
            summary=self.masks.hide(self.summary),
        )

    # --- before and after ---

    def _set_up(self, frame: StepFrame) -> None:
        plan, job = self.plan, self.plan.job
        minutes = render(job.timeout_minutes, self._scope(frame))
        self.deadline = time.monotonic() + 60 * float(minutes)
        self._check_environment()
        for templates in (plan.workflow.env, job.env):
            early = self._scope(frame)
            self.job_env |= {name: to_text(render(value, early)) for name, value in templates.items()}
        folder = job.defaults.working_directory or plan.workflow.defaults.working_directory
        rendered = None if folder is None else Template(to_text(render(folder, self._scope(frame))), ())
        frame.defaults = Defaults(job.defaults.shell or plan.workflow.defaults.shell, rendered)
        (plan.temp / "event.json").write_text(json.dumps(plan.event.payload), encoding="utf-8")
        (plan.temp / "no-access").write_text("", encoding="utf-8")
        settings = {"user.useConfigOnly": "true", "init.defaultBranch": "main", "gc.auto": "0"}
        config = git_config({**settings, **self.server.remote_settings()})
        (plan.home / ".gitconfig").write_text(config, encoding="utf-8")

    def _check_environment(self) -> None:
        settings = self.server.settings
        known = settings.find_environment(self.plan.environment)
        branches = settings.environments[known] if known is not None else ()
        ref = self.plan.event.ref
        name = ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else ""
        if branches and not (name and Patterns(tuple(branches)).accept(name)):
            what = f"{ref} is not allowed to deploy to {known} due to environment protection rules"
            raise MlopsError(what, fix=f"use one of these branches: {', '.join(branches)}")

    def _read_outputs(self, frame: StepFrame) -> tuple[dict[str, str], str]:
        """Return the job's outputs and the URL of its deployment."""
        scope = self._scope(frame)
        outputs: dict[str, str] = {}
        for name, value in self.plan.job.outputs.items():
            text = to_text(render(value, scope))
            if self.masks.found_in(text):
                self._annotate(f"Skip output '{name}' since it may contain secret.", level="warning")
            elif text:
                outputs[name] = text
        declared = self.plan.job.environment
        url = "" if declared is None or declared.url is None else self.masks.hide(to_text(render(declared.url, scope)))
        return outputs, url

    def _clean_up(self) -> None:
        for ending in reversed(self.endings):
            with contextlib.suppress(MlopsError):
                ending()
        kill_tracked(self.plan.tracking)
        shutil.rmtree(self.plan.work, ignore_errors=True)

    # --- one step ---

    def _run_step(self, step: Step, frame: StepFrame) -> StepResult:
        started = time.monotonic()
        before = len(self.annotations)
        name, outcome, conclusion = _default_name(step), "failure", "failure"
        outputs: dict[str, str] = {}
        first_line: int | None = self._lines
        try:
            scope = self._scope(frame)
            name = self.masks.hide(to_text(render(step.name, scope))) if step.name is not None else name
            if self._should_run(step, frame, scope):
                self._write(f"##[group]{name}")
                outcome, outputs = self._perform(step, frame)
            else:
                outcome, first_line = "skipped", None
            conclusion = outcome
            if outcome == "failure" and truthy(render(step.continue_on_error, self._scope(frame))):
                conclusion = "success"
        except MlopsError as error:
            self._annotate(str(error))
        if conclusion in ("failure", "cancelled"):
            frame.status = "failure" if conclusion == "failure" else "cancelled"
            if len(self.annotations) == before and frame.depth == 0:
                self._annotate(f"the step {name!r} ended in {conclusion}")
        if step.id:
            frame.steps[step.id] = {"outputs": outputs, "outcome": outcome, "conclusion": conclusion}
        seconds = time.monotonic() - started
        if frame.depth == 0:
            plan = self.plan
            self.machine.on_step(StepProgress(plan.number, plan.workflow.name, plan.name, name, conclusion, seconds))
        return StepResult(step.number, name, outcome, conclusion, seconds, first_line)

    def _should_run(self, step: Step, frame: StepFrame, scope: EvaluationScope) -> bool:
        if self.timed_out:
            return False
        succeeded = frame.status == "success" and not self.cancelled.is_set()
        if step.condition is None:
            return succeeded
        return (calls_status_function(step.condition) or succeeded) and truthy(evaluate(step.condition, scope))

    def _perform(self, step: Step, frame: StepFrame) -> tuple[str, dict[str, str]]:
        """Run the step and return its outcome and outputs."""
        env = {name: to_text(render(value, self._scope(frame))) for name, value in step.env.items()}
        scope = self._scope(frame, env)
        deadline = self.deadline
        if step.timeout_minutes is not None:
            deadline = min(deadline, time.monotonic() + 60 * float(render(step.timeout_minutes, scope)))
        if step.run is not None:
            return self._run_script(step, frame, env, scope, deadline)
        assert step.uses is not None
        inputs = {name: to_text(render(value, scope)) for name, value in step.inputs.items()}
        if step.uses.startswith("./"):
            return self._run_composite(step.uses, inputs, frame, env)
        return self._run_remote(step.uses.split("@")[0], inputs, frame, env)

    def _run_script(
        self, step: Step, frame: StepFrame, env: Mapping[str, str], scope: EvaluationScope, deadline: float
    ) -> tuple[str, dict[str, str]]:
        assert step.run is not None
        text = to_text(render(step.run, scope))
        unique = uuid.uuid4().hex
        script = self.plan.temp / f"{unique}.sh"
        script.write_text(text, encoding="utf-8")
        names = ("OUTPUT", "ENV", "PATH", "STEP_SUMMARY", "STATE")
        files = {name: self.plan.temp / f"{name.lower()}_{unique}" for name in names}
        for file in files.values():
            file.touch()
        shell = step.shell or frame.defaults.shell
        where = step.working_directory or frame.defaults.working_directory
        folder = self.workspace.path / (to_text(render(where, scope)) if where is not None else ".")
        if not folder.is_dir():
            raise MlopsError(f"the working directory does not exist: {folder}", fix="check out first")
        environ = self._environ(frame, env) | {f"GITHUB_{name}": str(file) for name, file in files.items()}
        for line in text.rstrip("\n").split("\n"):
            self._write(f"  {self.masks.hide(line)}")
        self._write("##[endgroup]")
        listener = Listener(self.masks)
        command = [*(_BASH if shell == "bash" else _NO_SHELL), str(script)]
        # A step that runs after a cancellation (`if: always()`) is not stopped by that cancellation.
        stop: StopSignal = threading.Event() if self.cancelled.is_set() else self.cancelled
        ended = run_script(
            command,
            folder,
            environ,
            on_line=lambda line: self._write(listener.hear(line)),
            deadline=deadline,
            cancelled=stop,
        )
        self.annotations += listener.annotations
        for problem in listener.problems:
            self._annotate(problem)
        script.unlink()
        if ended.why == "timeout":
            self.timed_out = deadline == self.deadline
            self._annotate(f"the {'job' if self.timed_out else 'step'} exceeded its timeout-minutes and was stopped")
        elif ended.code != 0 and not ended.why:
            self._annotate(f"Process completed with exit code {ended.code}.")
        outputs = {**listener.outputs, **workflow_commands.read_pairs(files["OUTPUT"])}
        self.exported |= workflow_commands.read_exports(files["ENV"])
        self.paths = [*workflow_commands.read_paths(files["PATH"]), *self.paths]
        try:
            self.summary += workflow_commands.read_summary(files["STEP_SUMMARY"])
        except MlopsError as error:
            self._annotate(str(error))
        if ended.why == "cancelled":
            return "cancelled", outputs
        return ("success" if ended.code == 0 and not ended.why and not listener.problems else "failure"), outputs

    def _run_composite(
        self, uses: str, inputs: Mapping[str, str], frame: StepFrame, env: Mapping[str, str]
    ) -> tuple[str, dict[str, str]]:
        if frame.depth >= DEEPEST_ACTIONS:
            raise MlopsError(f"composite actions nested more than {DEEPEST_ACTIONS} levels deep: {uses}")
        folder, action = self._find_action(uses)
        if unknown := sorted(set(inputs) - {item.name for item in action.inputs}):
            raise MlopsError(f"{uses} has no input {unknown[0]!r}")
        values: dict[str, str] = {}
        outside = self._scope(frame)
        for item in action.inputs:
            default = "" if item.default is None else to_text(render(item.default, outside))
            values[item.name] = inputs.get(item.name, default)
            if item.required and item.name not in inputs and item.default is None:
                raise MlopsError(f"{uses}: the input {item.name!r} is required")
        inner = StepFrame({}, values, {**frame.env, **env}, Defaults(), folder, frame.depth + 1)
        self._write("##[endgroup]")
        for step in action.steps:
            self._run_step(step, inner)
        scope = self._scope(inner)
        return inner.status, {name: to_text(render(value, scope)) for name, value in action.outputs.items()}

    def _find_action(self, uses: str) -> tuple[Path, CompositeAction]:
        """Read a composite action of the workspace."""
        root = self.workspace.path
        folder = (root / uses[2:]).resolve()
        if not folder.is_relative_to(root.resolve()):
            raise MlopsError(f"{uses} is outside the repository")
        for name in ("action.yml", "action.yaml"):
            if (folder / name).is_file():
                return folder, read_action((folder / name).read_bytes(), f"{uses[2:]}/{name}")
        raise MlopsError(f"Can't find 'action.yml' under {uses!r}", fix="run actions/checkout before a local action")

    def _run_remote(
        self, action: str, inputs: Mapping[str, str], frame: StepFrame, env: Mapping[str, str]
    ) -> tuple[str, dict[str, str]]:
        for name, value in inputs.items():
            self._write(f"  {name}: {self.masks.hide(value)}")
        self._write("##[endgroup]")
        plan = self.plan
        listener = Listener(self.masks)
        call = ActionCall(
            action=action,
            inputs=inputs,
            workspace=self.workspace.path,
            kept=self.workspace.kept,
            temp=plan.temp,
            environ=self._environ(frame, env),
            runner_environ=self.machine.environ,
            event=plan.event,
            actor=plan.actor,
            token=plan.token,
            environment=plan.environment,
            artifacts=plan.artifacts,
            run=plan.number,
            attempt=plan.attempt,
            workflow=plan.workflow.path,
            server=self.server,
            log=lambda line: self._write(listener.hear(line)),
            mask=self.masks.add,
            at_end=self.endings.append,
        )
        try:
            result = perform(call, self.machine.handlers)
        except MlopsError:
            raise
        except Exception as error:  # of an SDK or a registered function: it fails the step, as on GitHub
            raise MlopsError(f"{action}: {type(error).__name__}: {error}") from error
        self.annotations += listener.annotations
        self.exported |= result.exports
        self.paths = [*map(str, result.paths), *self.paths]
        return "success", dict(result.outputs)

    # --- contexts ---

    def _scope(self, frame: StepFrame, env: Mapping[str, str] | None = None) -> EvaluationScope:
        status = "cancelled" if self.cancelled.is_set() else frame.status
        workspace = self.workspace.path
        functions: dict[str, Callable[..., Any]] = {
            "success": lambda: status == "success",
            "failure": lambda: status == "failure",
            "cancelled": self.cancelled.is_set,
            "always": lambda: True,
            "hashfiles": lambda *patterns: hash_files(workspace, [to_text(pattern) for pattern in patterns]),
        }
        contexts = {
            **self.plan.contexts,
            "github": job_github_context(self.plan, workspace, frame),
            "env": self._variables(frame, env or {}),
            "inputs": frame.inputs,
            "steps": frame.steps,
            "job": {"status": status},
            "runner": runner_context(self.plan.temp),
        }
        return EvaluationScope(contexts, functions)

    def _environ(self, frame: StepFrame, env: Mapping[str, str]) -> dict[str, str]:
        return step_environ(
            self.plan,
            self.machine,
            frame,
            workspace=self.workspace.path,
            scratch=self.scratch,
            github=self.server.folder,
            paths=self.paths,
            variables=self._variables(frame, env),
        )

    def _variables(self, frame: StepFrame, env: Mapping[str, str]) -> dict[str, str]:
        """Return the declared and exported variables; the innermost declaration wins."""
        return {**self.job_env, **self.exported, **frame.env, **env}

    # --- the log ---

    def _write(self, line: str) -> None:
        with self._writing, contextlib.suppress(ValueError):  # a background process may write after the end
            self.log.write(line + "\n")
            self._lines += line.count("\n") + 1

    def _annotate(self, message: str, level: str = "error") -> None:
        shown = self.masks.hide(message)
        self.annotations.append(Annotation(level, shown))
        self._write(f"##[{level}]{shown}")


def _default_name(step: Step) -> str:
    """Return GitHub's name for a step that declares none."""
    text = step.uses if step.run is None else next(iter(step.run.text.strip().splitlines()), "")
    return f"Run {text}"[:120]
