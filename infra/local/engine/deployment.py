"""Brings a stack to what its program says: `preview`, `up`, `destroy`, `refresh`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local.engine.configuration import ProjectFile, load_project, load_stack
from infra.local.engine.display import Silence
from infra.local.engine.execution import Execution, Progress
from infra.local.engine.lock import stack_lock
from infra.local.engine.monitor import Monitor
from infra.local.engine.policy import Policy
from infra.local.engine.program import ORGANIZATION, run_program
from infra.local.engine.provider import Provider, Providers
from infra.local.engine.sealing import Seal
from infra.local.engine.state import (
    Contents,
    Ledger,
    known_outputs,
    load,
    masked,
    stack_outputs,
    state_path,
)
from infra.local.engine.steps import CHANGES_NOTHING, Step, summarise
from infra.local.engine.values import Properties
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
        plan = self._plan(project, self._load(project), self._progress)
        return self._verdict(plan, began, applied=False)

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
            plan = self._plan(project, contents, Silence())
            result = self._verdict(plan, began, applied=False)
            if not plan.ledger.changes and not contents.pending:
                return result
            run = self._execution(Ledger(contents, self._path, self._seal), applying=True)
            self._run(project, run)
            run.finish()
            return self._verdict(run, began, applied=True)

    def destroy(self) -> Result:
        """Deletes every resource of the stack, in the order that their dependencies ask for.

        Raises:
            DeploymentError: a resource is protected (then nothing is deleted), or could not be deleted.
            MlopsError: the state cannot be read, or another process works on the stack.
        """
        began = time.monotonic()
        project = load_project(self._root)
        with self._locked():
            ledger = Ledger(self._load(project), self._path, self._seal)
            run = self._execution(ledger, applying=True)
            run.finish()
            return self._verdict(run, began, applied=True)

    def refresh(self) -> Result:
        """Brings the state up to what is at the target, so that the next `up` puts drift right.

        Raises:
            DeploymentError: a resource could not be read.
            MlopsError: the state cannot be read, or another process works on the stack.
        """
        began = time.monotonic()
        project = load_project(self._root)
        with self._locked():
            ledger = Ledger(self._load(project), self._path, self._seal)
            run = self._execution(ledger, applying=True)
            run.refresh_all()
            return self._verdict(run, began, applied=True)

    def _locked(self) -> Any:
        path = self._path.with_suffix(".lock")
        return stack_lock(path, wait=self._lock_wait, notice=self._progress.noticed)

    def _load(self, project: ProjectFile) -> Contents:
        return load(self._path, project.name, self._stack, self._incarnation, self._seal)

    def _plan(self, project: ProjectFile, contents: Contents, progress: Progress) -> Execution:
        run = self._execution(Ledger(contents.copy()), applying=False, progress=progress)
        self._run(project, run)
        run.finish()
        return run

    def _execution(self, ledger: Ledger, *, applying: bool, progress: Progress | None = None) -> Execution:
        return Execution(
            ledger,
            self._providers,
            applying=applying,
            progress=progress or self._progress,
            parallel=self._parallel,
            stack_reference=self._other_stack,
        )

    def _run(self, project: ProjectFile, run: Execution) -> None:
        configuration = load_stack(project, self._stack)
        run_program(
            project,
            self._stack,
            configuration,
            Monitor(run, self._providers, project.name, self._stack),
            preview=not run.applying,
            parallel=self._parallel,
            say=self._progress.noticed,
            stop=run.stop,
        )

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

    def _verdict(self, run: Execution, began: float, *, applied: bool) -> Result:
        """The result of a run; raises DeploymentError when steps failed or rules are violated."""
        steps = run.steps
        known = run.ledger.contents.stack_resource()
        outputs = run.stack_outputs if not applied else (known.outputs if known is not None else Properties({}))
        result = Result(steps, masked(outputs), time.monotonic() - began, summarise(steps))
        failures = run.failures
        if failures:
            listed = "\n".join(f"{step.urn}\n  {_indented(step.error)}" for step in failures)
            done = "what was done before is kept in the state" if applied else "nothing was changed"
            raise DeploymentError(f"{len(failures)} step(s) failed; {done}:\n{listed}", result=result)
        violations = [str(found) for policy in self._policies for found in policy(run.planned)]
        if violations:
            listed = "\n".join(f"  {_indented(text)}" for text in violations)
            done = "after it was applied" if applied else "so nothing was changed"
            raise DeploymentError(f"{len(violations)} violation(s) of the rules, {done}:\n{listed}", result=result)
        return result


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")
