"""Operations on a stack: `preview`, `up`, `destroy`, `refresh` and `drift`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra.policies import PlannedResource
from laptop.engine.display import Held, Silence
from laptop.engine.execution import Execution
from laptop.engine.journal import Journal
from laptop.engine.lock import stack_lock
from laptop.engine.monitor import Monitor
from laptop.engine.program import ORGANIZATION, run_program
from laptop.engine.progress import RunProgress, RunReport
from laptop.engine.project_file import ProjectFile, load_project, load_stack
from laptop.engine.provider import Provider, Providers
from laptop.engine.refreshing import refresh_all
from laptop.engine.resource_steps import CHANGES_NOTHING, ResourceStep, summarise
from laptop.engine.resources import Contents
from laptop.engine.sealing import Seal
from laptop.engine.state_file import known_outputs, load, masked, stack_outputs, state_path
from laptop.engine.values import Properties
from pipelines.declarations.errors import MlopsError

__all__ = ["Deployment", "DeploymentError", "Policy", "Result", "stack_outputs"]

Policy = Callable[[Sequence[PlannedResource]], Iterable[object]]
"""Rule over the resource graph. Yields one object per violation; its text is shown."""


@dataclass(frozen=True)
class Result:
    """Result of an operation, done or planned.

    Attributes:
        steps: in the order in which they ended.
        outputs: of the stack; `[secret]` replaces a secret, `UNKNOWN` a value that is known only after an `up`.
        duration: seconds.
        counts: outcome → number of resources (`create`, `update`, `same`, `recorded`, …).
    """

    steps: tuple[ResourceStep, ...]
    outputs: dict[str, Any]
    duration: float
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def changes(self) -> tuple[ResourceStep, ...]:
        """Return the steps that changed something."""
        return tuple(step for step in self.steps if step.kind not in CHANGES_NOTHING)


class DeploymentError(MlopsError):
    """Steps failed or policies were violated.

    Attributes:
        result: what was done before.
    """

    def __init__(self, what: str, *, result: Result, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.result = result


@dataclass(frozen=True)
class _Run:
    """One pass over the program or the state."""

    execution: Execution
    report: RunReport
    journal: Journal
    applying: bool


class Deployment:
    """One stack of one project.

    Args:
        root: the folder with `Pulumi.yaml`.
        stack: its name; `Pulumi.<stack>.yaml` holds its configuration.
        providers: package (`aws`, `kubernetes`) → provider.
        home: folder of the laptop; the state file is `home/state/<stack>.json`.
        incarnation: id of the running account; the state of another one is refused. "" disables the check.
        parallel: maximum number of steps at once.
        policies: rules over the resource graph; a violation in the plan refuses the whole `up`.
        progress: receives the events of a run; `display.Display()` prints them.
        lock_wait: seconds to wait while another process works on the stack.
        configuration: full key → text; overrides `Pulumi.<stack>.yaml`.
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
        progress: RunProgress | None = None,
        lock_wait: float = 60.0,
        configuration: Mapping[str, str] | None = None,
    ) -> None:
        # Absolute, because a program runs in its own working directory.
        self._root = root.absolute()
        self._home = home.absolute()
        self._stack = stack
        self._providers = Providers(providers)
        self._incarnation = incarnation
        self._parallel = parallel
        self._policies = policies
        self._progress: RunProgress = progress or Silence()
        self._lock_wait = lock_wait
        self._configuration = dict(configuration or {})
        self._path = state_path(self._home, stack)
        self._seal = Seal(self._path.parent)

    def preview(self) -> Result:
        """Plan an `up`. Changes nothing and takes no lock.

        Raises:
            ProgramError: the program failed.
            DeploymentError: a step would fail, or a policy is violated.
            MlopsError: the state or the configuration cannot be read.
        """
        began = time.monotonic()
        project = load_project(self._root)
        plan = self._begin(Journal(self._load(project)), self._progress, applying=False)
        self._follow(project, plan)
        return self._verdict(plan, began)

    def up(self, *, refresh: bool = False) -> Result:
        """Apply the program. Plans first; a refused plan changes nothing.

        An unchanged stack costs one run of the program: a plan without changes is not applied.

        Args:
            refresh: update the state from the live resources first, so that drift is corrected.

        Raises:
            ProgramError: the program failed. Completed steps stay in the state.
            DeploymentError: steps failed, or a policy is violated.
            MlopsError: the state or the configuration cannot be read, or another process works on the stack.
        """
        began = time.monotonic()
        project = load_project(self._root)
        with self._locked():
            contents = self._load(project)
            if refresh:
                read = self._begin(self._on_file(contents), self._progress, applying=True)
                refresh_all(read.journal, self._providers, read.report, self._parallel)
                self._verdict(read, began)
            held = Held()
            plan = self._begin(Journal(contents.copy()), held, applying=False)
            try:
                self._follow(project, plan)
                result = self._verdict(plan, began)
            except MlopsError:
                held.release(self._progress)
                raise
            if not plan.journal.changes and not contents.pending:
                held.release(self._progress)
                return result
            run = self._begin(self._on_file(contents), self._progress, applying=True)
            self._follow(project, run)
            return self._verdict(run, began)

    def destroy(self) -> Result:
        """Delete every resource of the stack, dependents first.

        Raises:
            DeploymentError: a resource is protected (then nothing is deleted) or cannot be deleted.
            MlopsError: the state cannot be read, or another process works on the stack.
        """
        began = time.monotonic()
        project = load_project(self._root)
        with self._locked():
            run = self._begin(self._on_file(self._load(project)), self._progress, applying=True)
            run.execution.finish()
            return self._verdict(run, began)

    def refresh(self) -> Result:
        """Update the state from the live resources, so the next `up` corrects drift.

        Raises:
            DeploymentError: a resource cannot be read.
            MlopsError: the state cannot be read, or another process works on the stack.
        """
        began = time.monotonic()
        project = load_project(self._root)
        with self._locked():
            run = self._begin(self._on_file(self._load(project)), self._progress, applying=True)
            refresh_all(run.journal, self._providers, run.report, self._parallel)
            return self._verdict(run, began)

    def drift(self) -> tuple[ResourceStep, ...]:
        """Return the differences between state and live resources, then the steps of an `up`. Changes nothing.

        Raises:
            ProgramError: the program failed.
            DeploymentError: a resource cannot be read, or a policy is violated.
            MlopsError: the state or the configuration cannot be read.
        """
        began = time.monotonic()
        project = load_project(self._root)
        journal = Journal(self._load(project))
        read = self._begin(journal, self._progress, applying=False)
        refresh_all(journal, self._providers, read.report, self._parallel)
        found = self._verdict(read, began).changes
        plan = self._begin(journal, self._progress, applying=False)
        self._follow(project, plan)
        return (*found, *self._verdict(plan, began).changes)

    def _locked(self) -> Any:
        path = self._path.with_suffix(".lock")
        return stack_lock(path, wait=self._lock_wait, notice=self._progress.noticed)

    def _load(self, project: ProjectFile) -> Contents:
        return load(self._path, project.name, self._stack, self._incarnation, self._seal)

    def _on_file(self, contents: Contents) -> Journal:
        return Journal(contents, self._path, self._seal)

    def _begin(self, journal: Journal, progress: RunProgress, *, applying: bool) -> _Run:
        report = RunReport(progress)
        execution = Execution(
            journal,
            self._providers,
            report,
            applying=applying,
            parallel=self._parallel,
            stack_reference=self._other_stack,
        )
        return _Run(execution, report, journal, applying)

    def _follow(self, project: ProjectFile, run: _Run) -> None:
        """Run the program, then delete the resources that it no longer has."""
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
        """Return the outputs of a stack by its full name, `organization/<project>/<stack>`."""
        parts = name.split("/")
        unknown = MlopsError(
            f"unknown stack `{name}`: expected {ORGANIZATION}/<project>/<stack> of a stack that was applied",
            fix="apply that stack first.",
        )
        if len(parts) != 3 or parts[0] != ORGANIZATION:
            raise unknown
        outputs = known_outputs(state_path(self._home, parts[2]), self._seal, project=parts[1])
        if outputs is None:
            raise unknown
        return outputs

    def _verdict(self, run: _Run, began: float) -> Result:
        """Return the result of a run; raise DeploymentError if steps failed or policies are violated."""
        steps = run.report.steps
        stack = run.journal.contents.stack_resource()
        outputs = stack.outputs if stack is not None else Properties({})
        if not run.applying:
            outputs = run.execution.stack_outputs
        result = Result(steps, masked(outputs), time.monotonic() - began, summarise(steps))
        failures = run.report.failures
        if failures:
            listed = "\n".join(f"{step.urn}\n  {_indented(step.error)}" for step in failures)
            done = "completed steps are in the state" if run.applying else "nothing was changed"
            raise DeploymentError(f"{len(failures)} step(s) failed; {done}:\n{listed}", result=result)
        violations = [str(found) for policy in self._policies for found in policy(run.execution.planned)]
        if violations:
            listed = "\n".join(f"  {_indented(text)}" for text in violations)
            done = "found after the update" if run.applying else "nothing was changed"
            raise DeploymentError(f"{len(violations)} policy violation(s); {done}:\n{listed}", result=result)
        return result


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")
