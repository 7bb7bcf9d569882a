"""Brings a stack to what its program says: `preview`, `up`, `destroy`, `refresh`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from laptop.engine.configuration import ProjectFile, load_project, load_stack
from laptop.engine.display import Held, Silence
from laptop.engine.execution import Execution
from laptop.engine.ledger import Ledger
from laptop.engine.lock import stack_lock
from laptop.engine.monitor import Monitor
from laptop.engine.policy import Policy
from laptop.engine.program import ORGANIZATION, run_program
from laptop.engine.provider import Provider, Providers
from laptop.engine.refreshing import refresh_all
from laptop.engine.report import Progress, Report
from laptop.engine.resources import Contents
from laptop.engine.sealing import Seal
from laptop.engine.state import known_outputs, load, masked, stack_outputs, state_path
from laptop.engine.steps import CHANGES_NOTHING, Step, summarise
from laptop.engine.values import Properties
from pipelines.declarations.errors import MlopsError

__all__ = ["Deployment", "DeploymentError", "Result", "stack_outputs"]


@dataclass(frozen=True)
class Result:
    """What an operation did, or would do.

    Attributes:
        steps: in the order in which they ended.
        outputs: of the stack; `[secret]` stands for a secret, `values.UNKNOWN` for what only an `up` will know.
        duration: seconds.
        counts: outcome → number of resources (`create`, `update`, `same`, `recorded`, …).
    """

    steps: tuple[Step, ...]
    outputs: dict[str, Any]
    duration: float
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def changes(self) -> tuple[Step, ...]:
        """The steps that changed something."""
        return tuple(step for step in self.steps if step.kind not in CHANGES_NOTHING)


class DeploymentError(MlopsError):
    """Steps failed, or rules were violated.

    Attributes:
        result: what was done all the same.
    """

    def __init__(self, what: str, *, result: Result, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.result = result


@dataclass(frozen=True)
class _Run:
    """One pass over the program, or over the state."""

    execution: Execution
    report: Report
    ledger: Ledger
    applying: bool


class Deployment:
    """One stack of one project.

    Args:
        root: the folder with `Pulumi.yaml`.
        stack: its name; `Pulumi.<stack>.yaml` holds its configuration.
        providers: package (`aws`, `kubernetes`) → provider.
        home: the folder of the local target; the state is `home/state/<stack>.json`.
        incarnation: which emulated account this is; the state of another one is refused. Empty: not tracked.
        parallel: the most steps at once.
        policies: rules over the resource graph; a violation in the plan refuses the whole `up`.
        progress: who is told of the run while it goes on; `display.Display()` prints it.
        lock_wait: seconds to wait while another process works on the stack.
        configuration: full key → text, in the place of what `Pulumi.<stack>.yaml` says.
    """

    def __init__(
        self,
        root: Path,
        stack: str,
        providers: Mapping[str, Provider],
        home: Path,
        incarnation: str = "",
        parallel: int = 16,
        policies: Sequence[Policy] = (),
        progress: Progress | None = None,
        lock_wait: float = 60.0,
        configuration: Mapping[str, str] | None = None,
    ) -> None:
        # Absolute, as the program changes the working directory while it runs.
        self._root = root.absolute()
        self._home = home.absolute()
        self._stack = stack
        self._providers = Providers(providers)
        self._incarnation = incarnation
        self._parallel = parallel
        self._policies = policies
        self._progress: Progress = progress or Silence()
        self._lock_wait = lock_wait
        self._configuration = dict(configuration or {})
        self._path = state_path(self._home, stack)
        self._seal = Seal(self._path.parent)

    def preview(self) -> Result:
        """What an `up` would do. Changes nothing, and does not wait for others that work on the stack.

        Raises:
            ProgramError: the program failed.
            DeploymentError: a step would be refused, or a rule is violated.
            MlopsError: the state or the configuration cannot be read.
        """
        began = time.monotonic()
        project = load_project(self._root)
        plan = self._begin(Ledger(self._load(project)), self._progress, applying=False)
        self._follow(project, plan)
        return self._verdict(plan, began)

    def up(self) -> Result:
        """Makes the target what the program says. Plans first; a plan that is refused changes nothing.

        A plan without any change is the end of it: an unchanged stack costs one run of the program.

        Raises:
            ProgramError: the program failed; what was done before stays done and is known.
            DeploymentError: steps failed or were refused, or a rule is violated.
            MlopsError: the state or the configuration cannot be read, or another process works on the stack.
        """
        began = time.monotonic()
        project = load_project(self._root)
        with self._locked():
            contents = self._load(project)
            held = Held()
            plan = self._begin(Ledger(contents.copy()), held, applying=False)
            try:
                self._follow(project, plan)
                result = self._verdict(plan, began)
            except MlopsError:
                held.release(self._progress)
                raise
            if not plan.ledger.changes and not contents.pending:
                held.release(self._progress)
                return result
            run = self._begin(self._on_file(contents), self._progress, applying=True)
            self._follow(project, run)
            return self._verdict(run, began)

    def destroy(self) -> Result:
        """Deletes every resource of the stack, in the order that their dependencies ask for.

        Raises:
            DeploymentError: a resource is protected (then nothing is deleted), or could not be deleted.
            MlopsError: the state cannot be read, or another process works on the stack.
        """
        began = time.monotonic()
        project = load_project(self._root)
        with self._locked():
            run = self._begin(self._on_file(self._load(project)), self._progress, applying=True)
            run.execution.finish()
            return self._verdict(run, began)

    def refresh(self) -> Result:
        """Brings the state up to what is at the target, so that the next `up` puts drift right.

        Raises:
            DeploymentError: a resource could not be read.
            MlopsError: the state cannot be read, or another process works on the stack.
        """
        began = time.monotonic()
        project = load_project(self._root)
        with self._locked():
            run = self._begin(self._on_file(self._load(project)), self._progress, applying=True)
            refresh_all(run.ledger, self._providers, run.report, self._parallel)
            return self._verdict(run, began)

    def drift(self) -> tuple[Step, ...]:
        """What is at the target but not as the state says, then what an `up` would do. Changes nothing, nor the state.

        Raises:
            ProgramError: the program failed.
            DeploymentError: a resource could not be read, or a rule is violated.
            MlopsError: the state or the configuration cannot be read.
        """
        began = time.monotonic()
        project = load_project(self._root)
        ledger = Ledger(self._load(project))
        read = self._begin(ledger, self._progress, applying=False)
        refresh_all(ledger, self._providers, read.report, self._parallel)
        found = self._verdict(read, began).changes
        plan = self._begin(ledger, self._progress, applying=False)
        self._follow(project, plan)
        return (*found, *self._verdict(plan, began).changes)

    def _locked(self) -> Any:
        path = self._path.with_suffix(".lock")
        return stack_lock(path, wait=self._lock_wait, notice=self._progress.noticed)

    def _load(self, project: ProjectFile) -> Contents:
        return load(self._path, project.name, self._stack, self._incarnation, self._seal)

    def _on_file(self, contents: Contents) -> Ledger:
        return Ledger(contents, self._path, self._seal)

    def _begin(self, ledger: Ledger, progress: Progress, *, applying: bool) -> _Run:
        report = Report(progress)
        execution = Execution(
            ledger,
            self._providers,
            report,
            applying=applying,
            parallel=self._parallel,
            stack_reference=self._other_stack,
        )
        return _Run(execution, report, ledger, applying)

    def _follow(self, project: ProjectFile, run: _Run) -> None:
        """Runs the program, and deletes what it no longer has."""
        stack = load_stack(project, self._stack)
        run_program(
            project,
            self._stack,
            replace(stack, values={**stack.values, **self._configuration}),
            Monitor(run.execution, self._providers, project.name, self._stack),
            preview=not run.applying,
            parallel=self._parallel,
            say=run.report.noticed,
            stop=run.execution.stop,
        )
        run.execution.finish()

    def _other_stack(self, name: str) -> Properties:
        """The outputs of a stack by its full name, `organization/<project>/<stack>`."""
        parts = name.split("/")
        unknown = MlopsError(
            f"unknown stack `{name}`",
            fix=f"apply that stack first; its name is {ORGANIZATION}/<project>/<stack>.",
        )
        if len(parts) != 3 or parts[0] != ORGANIZATION:
            raise unknown
        outputs = known_outputs(state_path(self._home, parts[2]), self._seal, project=parts[1])
        if outputs is None:
            raise unknown
        return outputs

    def _verdict(self, run: _Run, began: float) -> Result:
        """The result of a run; raises DeploymentError when steps failed or rules are violated."""
        steps = run.report.steps
        stack = run.ledger.contents.stack_resource()
        outputs = stack.outputs if stack is not None else Properties({})
        if not run.applying:
            outputs = run.execution.stack_outputs
        result = Result(steps, masked(outputs), time.monotonic() - began, summarise(steps))
        failures = run.report.failures
        if failures:
            listed = "\n".join(f"{step.urn}\n  {_indented(step.error)}" for step in failures)
            done = "what was done before is kept in the state" if run.applying else "nothing was changed"
            raise DeploymentError(f"{len(failures)} step(s) failed; {done}:\n{listed}", result=result)
        violations = [str(found) for policy in self._policies for found in policy(run.execution.planned)]
        if violations:
            listed = "\n".join(f"  {_indented(text)}" for text in violations)
            done = "after it was applied" if run.applying else "so nothing was changed"
            raise DeploymentError(f"{len(violations)} violation(s) of the rules, {done}:\n{listed}", result=result)
        return result


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")
