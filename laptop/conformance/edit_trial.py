"""One project that both engines run: the laptop's and Pulumi's, each with a cloud of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from laptop.conformance.comparison import (
    Record,
    differences,
    found_by_laptop,
    found_by_pulumi,
    of_laptop,
    of_pulumi,
    steps_of_laptop,
    steps_of_pulumi,
    without_deletes,
)
from laptop.conformance.inline_cli import Finished, InlineCli
from laptop.conformance.program_edits import PACKAGE, PROJECT, TOKEN, Program, register, without
from laptop.conformance.scripted_provider import ScriptedProvider
from laptop.engine.deployment import Deployment, DeploymentError, Result
from laptop.engine.program import ProgramError
from laptop.engine.provider_servicer import ProviderServicer, serving
from laptop.engine.sealing import Seal
from laptop.engine.state_file import load
from pipelines.declarations.errors import MlopsError

STACK = "dev"
_VERSION = "1.0.0"
_MAIN = """import json
from pathlib import Path
import pulumi
from laptop.conformance.program_edits import Program, register
file = Path(__file__).with_name(f"program.{pulumi.get_stack()}.json")
register(Program.of(json.loads(file.read_text())))
"""


@dataclass
class Applied:
    """What became of one operation by both engines.

    Attributes:
        different: one line per difference.
        error: why the laptop's engine refused or failed, or "".
        refused: it refused the plan, so nothing was applied; Pulumi was then asked for a preview only.
        pulumi: what the CLI said.
    """

    different: list[str] = field(default_factory=list)
    error: str = ""
    refused: bool = False
    pulumi: str = ""


class Trial:
    """A project with one stack or more, and the cloud and the state of each engine.

    Args:
        folder: an empty folder.
        template: a CLI whose stacks are copied, so the trial need not initialise its own.
    """

    def __init__(self, folder: Path, template: InlineCli, stacks: Sequence[str] = (STACK,)) -> None:
        self.folder = folder
        self.project = folder / "project"
        write_project(self.project, stacks)
        self.ours = ScriptedProvider(folder / "laptop-cloud.json")
        self.theirs = ScriptedProvider(folder / "pulumi-cloud.json")
        self.cli = InlineCli(template.binary, folder / "pulumi", self.project, {})
        self.cli.copy_of(template)

    @contextmanager
    def running(self) -> Iterator[Trial]:
        """Serve the cloud to the CLI."""
        with serving(ProviderServicer(self.theirs, PACKAGE, _VERSION)) as port:
            self.cli.providers = {PACKAGE: port}
            yield self

    def engine(self, stack: str = STACK) -> Deployment:
        """Return the laptop's engine for a stack."""
        return Deployment(self.project, stack, {PACKAGE: self.ours}, self.folder / "laptop")

    def change_clouds(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Apply a change to the things of both clouds, as somebody without Pulumi would."""
        for provider in (self.ours, self.theirs):
            with provider.open() as content:
                change(content["things"])

    def refuse(self, *calls: tuple[str, str]) -> None:
        """Let these calls (verb, logical name) fail in both clouds from now on, and no others."""
        self.ours.refused = set(calls)
        self.theirs.refused = set(calls)

    def write(self, program: Program, stack: str = STACK) -> None:
        file = self.project / f"program.{stack}.json"
        file.write_text(json.dumps(program.to_json()), encoding="utf-8")

    def up(self, program: Program, stack: str = STACK, *, deletes: bool = True) -> Applied:
        """Apply a program by both engines and compare.

        Args:
            deletes: False leaves deletions out of the comparison. After a failure the laptop's engine deletes nothing,
                as `pulumi up`; Pulumi's is run with `--continue-on-error`, because what it stops otherwise is chance.
        """
        self.write(program, stack)
        return self._both(
            stack,
            lambda engine: engine.up(),
            lambda: self.cli.run("up", stack, lambda: register(program), "--continue-on-error"),
            lambda: self.cli.run("preview", stack, lambda: register(program)),
            deletes=deletes,
        )

    def refresh(self, stack: str = STACK) -> Applied:
        """Refresh both states and compare."""
        return self._both(
            stack, lambda engine: engine.refresh(), lambda: self.cli.operate("refresh", stack), refresh=True
        )

    def destroy(self, stack: str = STACK) -> Applied:
        """Destroy the stack by both engines and compare."""
        return self._both(
            stack, lambda engine: engine.destroy(), lambda: self.cli.operate("destroy", stack, "--continue-on-error")
        )

    def kill(self, program: Program, moment: str, verb: str, name: str) -> None:
        """Apply a program by both engines, and kill both with SIGKILL before or after a call to the cloud."""
        self.write(program)
        arguments = [str(self.folder), moment, verb, name]
        code = "import sys; from laptop.conformance.edit_trial import apply_and_die; apply_and_die(*sys.argv[1:])"
        died = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
        if died.returncode != -signal.SIGKILL:
            raise RuntimeError(f"the laptop's engine was not killed: {died.stdout}{died.stderr}")

        def strike(*found: str) -> None:
            if found == (moment, verb, name):
                assert self.cli.running is not None
                self.cli.running.kill()
                if moment == "before":
                    raise MlopsError("the engine is dead")

        self.theirs.around = strike
        try:
            finished = self.cli.run("up", STACK, lambda: register(program))
        finally:
            self.theirs.around = lambda *_: None
        if finished.code != -signal.SIGKILL:
            raise RuntimeError(f"the CLI was not killed: {finished.output}")
        self.cli.cancel(STACK)

    def laptop_state(self, stack: str = STACK) -> dict[str, Record]:
        """Return the state of the laptop's engine in comparable form."""
        state = self.folder / "laptop" / "state"
        return of_laptop(load(state / f"{stack}.json", PROJECT, stack, "", Seal(state)))

    def pulumi_state(self, stack: str = STACK) -> dict[str, Record]:
        """Return the state of Pulumi's engine in comparable form."""
        return of_pulumi(self.cli.deployment(stack))

    def _both(
        self,
        stack: str,
        ours: Callable[[Deployment], Result],
        theirs: Callable[[], Finished],
        preview: Callable[[], Finished] | None = None,
        *,
        deletes: bool = True,
        refresh: bool = False,
    ) -> Applied:
        before = self.laptop_state(stack)
        self.ours.calls.clear()
        self.theirs.calls.clear()
        applied = Applied()
        steps = None
        try:
            steps = ours(self.engine(stack)).steps
        except DeploymentError as error:
            applied.error, steps = str(error), error.result.steps
            applied.refused = "nothing was changed" in applied.error
        except ProgramError as error:
            applied.error, applied.refused = str(error), True
        finished = preview() if applied.refused and preview is not None else theirs()
        applied.pulumi = finished.output
        if (finished.code != 0) != bool(applied.error):
            applied.different.append(
                f"laptop: {applied.error or 'succeeded'}; Pulumi: exit code {finished.code}, {finished.output[-3000:]}"
            )
        our_state, their_state = self.laptop_state(stack), self.pulumi_state(stack)
        our_calls, their_calls = sorted(self.ours.calls), sorted(self.theirs.calls)
        if not deletes:
            deleted = {key for key in before if key not in their_state}
            our_state = {
                key: record
                for key, record in our_state.items()
                if key not in deleted and (key in their_state or " (replaced) " not in key)
            }
            our_calls, their_calls = (
                [call for call in calls if call[0] != "delete"] for calls in (our_calls, their_calls)
            )
        applied.different += differences(our_state, their_state)
        if steps is not None and not applied.refused:
            succeeded = [step for step in steps if not step.error]
            if refresh:
                a, b = found_by_laptop(succeeded), found_by_pulumi(finished)
            else:
                a, b = steps_of_laptop(succeeded), steps_of_pulumi(finished, before)
            if not deletes:
                a, b = without_deletes(a), without_deletes(b)
            applied.different += [
                f"step {kind} {urn}: laptop {a[kind, urn]} times, Pulumi {b[kind, urn]} times"
                for kind, urn in sorted(a.keys() | b.keys())
                if a[kind, urn] != b[kind, urn]
            ]
        if our_calls != their_calls:
            applied.different.append(f"calls: laptop {our_calls}, Pulumi {their_calls}")
        early = [wrong_order(provider.calls, before) for provider in (self.ours, self.theirs)]
        if early[0] != early[1]:
            applied.different.append(f"order of deletions: laptop {early[0]}, Pulumi {early[1]}")
        return applied


def write_project(folder: Path, stacks: Iterable[str]) -> None:
    """Write a project whose program is in `program.<stack>.json`."""
    folder.mkdir(parents=True)
    settings = f"name: {PROJECT}\nruntime: python\nmain: program.py\nconfig:\n  token: {TOKEN}\n"
    (folder / "Pulumi.yaml").write_text(settings, encoding="utf-8")
    (folder / "program.py").write_text(_MAIN, encoding="utf-8")
    for stack in stacks:
        (folder / f"Pulumi.{stack}.yaml").write_text("config: {}\n", encoding="utf-8")


def apply_and_die(folder: str, moment: str, verb: str, name: str) -> None:
    """Apply the program of a trial with the laptop's engine; this process dies at a call to the cloud."""
    provider = ScriptedProvider(Path(folder) / "laptop-cloud.json")

    def strike(*found: str) -> None:
        if found == (moment, verb, name):
            os.kill(os.getpid(), signal.SIGKILL)

    provider.around = strike
    Deployment(Path(folder) / "project", STACK, {PACKAGE: provider}, Path(folder) / "laptop").up()


def wrong_order(calls: Sequence[tuple[str, str, str]], before: dict[str, Record]) -> list[str]:
    """Return one line per resource that was deleted although another one still needed it.

    Args:
        calls: changes in their order, as (verb, logical name, id).
        before: records of the state before.
    """
    deleted = [id_ for verb, _, id_ in calls if verb == "delete"]
    wrong = []
    for key, record in before.items():
        if record.get("id") not in deleted or not record.get("custom"):
            continue
        by_property = {urn for urns in record["propertyDependencies"].values() for urn in urns}
        for urn in sorted({*record["dependencies"], *by_property}):
            needed = before.get(urn, {}).get("id")
            if needed in deleted and deleted.index(needed) < deleted.index(record["id"]):
                wrong.append(f"{urn} was deleted before {key}, which depends on it")
    return wrong


def play(trial: Trial, programs: Sequence[Program]) -> tuple[int, Applied] | None:
    """Apply programs one after the other. Return the first whose application differs, by index, or None."""
    with trial.running():
        for index, program in enumerate(programs):
            applied = trial.up(program)
            if applied.different:
                return index, applied
    return None


def shortened(programs: list[Program], fails: Callable[[list[Program]], bool], attempts: int) -> list[Program]:
    """Return a shorter sequence that still fails.

    Args:
        programs: a sequence whose last program fails.
        fails: applies a sequence from nothing, and returns True if its last program fails.
        attempts: maximum number of calls of `fails`.
    """
    left = attempts
    at = len(programs) - 2
    while at >= 0 and left > 0:
        candidate = [*programs[:at], *programs[at + 1 :]]
        left -= 1
        if fails(candidate):
            programs = candidate
        at -= 1
    for key in [node.key for node in programs[-1].nodes]:
        if left <= 0:
            break
        candidate = [without(program, key) for program in programs]
        left -= 1
        if fails(candidate):
            programs = candidate
    return programs
