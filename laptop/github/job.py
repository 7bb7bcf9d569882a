"""Run one job (one leg of its matrix) of a workflow: its steps in order, in a folder and an environment of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from laptop.github import commands
from laptop.github.access import Actor
from laptop.github.actions import Call, Twin, perform
from laptop.github.commands import Annotation, Listener, Masks
from laptop.github.events import SERVER, Event
from laptop.github.expressions import Scope, Template, asks_status, evaluate, render, to_text, truthy
from laptop.github.filters import Patterns
from laptop.github.forge import Forge
from laptop.github.git import extract
from laptop.github.places import Place, take_place
from laptop.github.processes import TRACKING, end_tracked
from laptop.github.reading import read_action
from laptop.github.results import JobResult, Progress, StepResult
from laptop.github.steps import Stop, run_script
from laptop.github.workflow import CompositeAction, Defaults, Job, Step, Workflow
from pipelines.declarations.errors import MlopsError

SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
DEEPEST_ACTIONS = 9
_BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
_NO_SHELL = ("bash", "-e")
"""GitHub's default without `shell:`, which lacks pipefail."""

_ACCESS = re.compile(
    r"AWS_(?:ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|PROFILE|CONFIG_FILE)|AWS_SHARED_.*|AWS_CONTAINER_.*|AWS_WEB_.*"
)


@dataclass(frozen=True)
class Machine:
    """What the runner gives to every job.

    Attributes:
        environ: variables for every step, but for those that carry access to AWS: a job gets that as on GitHub, from
            aws-actions/configure-aws-credentials.
        path: folders in front of the system's PATH.
        twins: the caller's functions for remote actions.
        on_step: hears of every step that ends.
    """

    environ: Mapping[str, str] = field(default_factory=dict)
    path: Sequence[Path] = ()
    twins: Mapping[str, Twin] = field(default_factory=dict)
    on_step: Callable[[Progress], None] = lambda progress: None


@dataclass(frozen=True)
class Plan:
    """One job that is to run.

    Attributes:
        contexts: `github`, `needs`, `inputs`, `vars`, `secrets`, `matrix`, `strategy`.
        actor: whoever the job's token speaks for, with the job's permissions.
        environment: the deployment environment, or "".
        folder: for its log.
        work: for its home and its temporary files; removed when the job ends.
        artifacts: the run's.
        tracking: on every process of the job.
    """

    number: int
    attempt: int
    workflow: Workflow
    job: Job
    name: str
    event: Event
    contexts: Mapping[str, Any]
    actor: Actor
    token: str
    environment: str
    folder: Path
    work: Path
    artifacts: Path
    tracking: str


@dataclass
class _Frame:
    """Where steps run: the job itself, or a composite action in it."""

    steps: dict[str, Any]
    inputs: Mapping[str, Any]
    env: Mapping[str, str]
    defaults: Defaults
    action_path: Path | None = None
    depth: int = 0
    status: str = "success"


class JobExecution:
    """Runs one job.

    Args:
        plan: the job.
        forge: the repository.
        machine: what the runner gives.
        cancelled: set by whoever wants the job to stop.
    """

    def __init__(self, plan: Plan, forge: Forge, machine: Machine, cancelled: Stop) -> None:
        self.plan = plan
        self.forge = forge
        self.machine = machine
        self.cancelled = cancelled
        self.place: Place
        self.scratch: Path
        self.temp = plan.work / "temp"
        self.masks = Masks()
        self.annotations: list[Annotation] = []
        self.summary = ""
        self.exported: dict[str, str] = {}
        self.paths: list[str] = []
        self.job_env: dict[str, str] = {}
        self.endings: list[Callable[[], None]] = []
        self.deadline = time.monotonic()
        self.late = False
        self.log: TextIO
        self._writing = threading.Lock()

    @property
    def workspace(self) -> Path:
        """The folder that steps run in."""
        return self.place.workspace

    def run(self) -> JobResult:
        """Run the job to its end; everything that goes wrong is in the result."""
        with take_place(self.forge.folder / "places") as self.place:
            return self._run()

    def _run(self) -> JobResult:
        # As /tmp on GitHub's machines: apart from the repository that this forge may lie in.
        with tempfile.TemporaryDirectory(prefix="mlops-job-", ignore_cleanup_errors=True) as scratch:
            self.scratch = Path(scratch)
            return self._run_steps()

    def _run_steps(self) -> JobResult:
        plan, started = self.plan, time.monotonic()
        for folder in (plan.folder, self.temp, plan.work / "home"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.masks.add(plan.token)
        for value in plan.contexts["secrets"].values():
            self.masks.add(value)
        results: list[StepResult] = []
        frame = _Frame({}, plan.contexts["inputs"], {}, plan.workflow.defaults)
        outputs: dict[str, str] = {}
        url = ""
        path = plan.folder / "log.txt"
        with path.open("w", encoding="utf-8", buffering=1) as self.log:
            try:
                self._set_up(frame)
                for step in plan.job.steps:
                    results.append(self._step(step, frame))
                outputs, url = self._finish(frame)
            except MlopsError as error:
                self._complain(str(error))
                frame.status = "failure"
            finally:
                self._clean_up()
        # A job that ran out of time is cancelled, as on GitHub.
        conclusion = "cancelled" if (self.cancelled.is_set() or self.late) else frame.status
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

    # --- before and after --------------------------------------------------------------------------------------------

    def _set_up(self, frame: _Frame) -> None:
        plan, job = self.plan, self.plan.job
        scope = self._scope(frame)
        minutes = render(job.timeout_minutes, scope)
        self.deadline = time.monotonic() + 60 * float(minutes)
        self._check_environment()
        for templates in (plan.workflow.env, job.env):
            early = self._scope(frame)
            self.job_env |= {name: to_text(render(value, early)) for name, value in templates.items()}
        scope = self._scope(frame)
        folder = job.defaults.working_directory or plan.workflow.defaults.working_directory
        rendered = None if folder is None else Template(to_text(render(folder, scope)), ())
        frame.defaults = Defaults(job.defaults.shell or plan.workflow.defaults.shell, rendered)
        (self.temp / "event.json").write_text(json.dumps(plan.event.payload), encoding="utf-8")
        (self.temp / "no-access").write_text("", encoding="utf-8")
        settings = {
            "user.useConfigOnly": "true",
            "init.defaultBranch": "main",
            "gc.auto": "0",
            **self.forge.remote_settings(),
        }
        lines = [_git_setting(name, value) for name, value in settings.items()]
        (plan.work / "home" / ".gitconfig").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _check_environment(self) -> None:
        branches = self.forge.settings.environments.get(self.plan.environment, ())
        ref = self.plan.event.ref
        name = ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else ""
        if self.plan.environment and branches and not (name and Patterns(tuple(branches)).accept(name)):
            what = f"{ref} is not allowed to deploy to {self.plan.environment} due to environment protection rules"
            raise MlopsError(what, fix=f"branches that may: {', '.join(branches)}")

    def _finish(self, frame: _Frame) -> tuple[dict[str, str], str]:
        scope = self._scope(frame)
        outputs: dict[str, str] = {}
        for name, value in self.plan.job.outputs.items():
            text = to_text(render(value, scope))
            if self.masks.found_in(text):
                self._complain(f"Skip output '{name}' since it may contain secret.", level="warning")
            elif text:
                outputs[name] = text
        declared = self.plan.job.environment
        url = "" if declared is None or declared.url is None else self.masks.hide(to_text(render(declared.url, scope)))
        return outputs, url

    def _clean_up(self) -> None:
        for ending in reversed(self.endings):
            with contextlib.suppress(MlopsError):
                ending()
        end_tracked(self.plan.tracking)
        shutil.rmtree(self.plan.work, ignore_errors=True)

    # --- one step ----------------------------------------------------------------------------------------------------

    def _step(self, step: Step, frame: _Frame) -> StepResult:
        started = time.monotonic()
        before = len(self.annotations)
        name, outcome, conclusion = _plain_name(step), "failure", "failure"
        outputs: dict[str, str] = {}
        try:
            scope = self._scope(frame)
            name = self.masks.hide(to_text(render(step.name, scope))) if step.name is not None else name
            if self._wanted(step, frame, scope):
                self._write(f"##[group]{name}")
                outcome, outputs = self._perform(step, frame)
            else:
                outcome = "skipped"
            conclusion = outcome
            if outcome == "failure" and truthy(render(step.continue_on_error, self._scope(frame))):
                conclusion = "success"
        except MlopsError as error:
            self._complain(str(error))
        if conclusion in ("failure", "cancelled"):
            frame.status = "failure" if conclusion == "failure" else "cancelled"
            if len(self.annotations) == before and frame.depth == 0:
                self._complain(f"the step {name!r} ended in {conclusion}")
        if step.id:
            frame.steps[step.id] = {"outputs": outputs, "outcome": outcome, "conclusion": conclusion}
        seconds = time.monotonic() - started
        if frame.depth == 0:
            progress = Progress(self.plan.number, self.plan.workflow.name, self.plan.name, name, conclusion, seconds)
            self.machine.on_step(progress)
        return StepResult(step.number, name, outcome, conclusion, seconds)

    def _wanted(self, step: Step, frame: _Frame, scope: Scope) -> bool:
        if self.late:
            return False
        fine = frame.status == "success" and not self.cancelled.is_set()
        if step.condition is None:
            return fine
        return (asks_status(step.condition) or fine) and truthy(evaluate(step.condition, scope))

    def _perform(self, step: Step, frame: _Frame) -> tuple[str, dict[str, str]]:
        env = {name: to_text(render(value, self._scope(frame))) for name, value in step.env.items()}
        scope = self._scope(frame, env)
        deadline = self.deadline
        if step.timeout_minutes is not None:
            deadline = min(deadline, time.monotonic() + 60 * float(render(step.timeout_minutes, scope)))
        if step.run is not None:
            return self._script(step, frame, env, scope, deadline)
        assert step.uses is not None
        inputs = {name: to_text(render(value, scope)) for name, value in step.inputs.items()}
        if step.uses.startswith(("./", "$/")):
            return self._composite(step.uses, inputs, frame, env)
        return self._action(step.uses.split("@")[0], inputs, frame, env)

    def _script(
        self, step: Step, frame: _Frame, env: Mapping[str, str], scope: Scope, deadline: float
    ) -> tuple[str, dict[str, str]]:
        assert step.run is not None
        text = to_text(render(step.run, scope))
        unique = uuid.uuid4().hex
        script = self.temp / f"{unique}.sh"
        script.write_text(text, encoding="utf-8")
        files = {
            name: self.temp / f"{name.lower()}_{unique}" for name in ("OUTPUT", "ENV", "PATH", "STEP_SUMMARY", "STATE")
        }
        for file in files.values():
            file.touch()
        shell = step.shell or frame.defaults.shell
        where = step.working_directory or frame.defaults.working_directory
        folder = self.workspace / (to_text(render(where, scope)) if where is not None else ".")
        if not folder.is_dir():
            raise MlopsError(f"the working directory does not exist: {folder}", fix="check out first")
        environ = self._environ(frame, env) | {f"GITHUB_{name}": str(file) for name, file in files.items()}
        for line in text.rstrip("\n").split("\n"):
            self._write(f"  {self.masks.hide(line)}")
        self._write("##[endgroup]")
        listener = Listener(self.masks)
        command = [*(_BASH if shell == "bash" else _NO_SHELL), str(script)]
        # What runs after a cancellation (`if: always()`) is not stopped by that same cancellation.
        stop: Stop = threading.Event() if self.cancelled.is_set() else self.cancelled
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
            self._complain(problem)
        script.unlink()
        if ended.why == "timeout":
            self.late = deadline == self.deadline
            self._complain(
                f"the {'job' if self.late else 'step'} ran longer than it may (timeout-minutes), and was ended"
            )
        elif ended.code != 0 and not ended.why:
            self._complain(f"Process completed with exit code {ended.code}.")
        outputs = commands.read_pairs(files["OUTPUT"])
        self.exported |= commands.read_exports(files["ENV"])
        self.paths = [*commands.read_paths(files["PATH"]), *self.paths]
        self.summary += commands.read_summary(files["STEP_SUMMARY"])
        if ended.why == "cancelled":
            return "cancelled", outputs
        return ("success" if ended.code == 0 and not ended.why and not listener.problems else "failure"), outputs

    def _composite(
        self, uses: str, inputs: Mapping[str, str], frame: _Frame, env: Mapping[str, str]
    ) -> tuple[str, dict[str, str]]:
        if frame.depth >= DEEPEST_ACTIONS:
            raise MlopsError(f"actions call each other more than {DEEPEST_ACTIONS} deep: {uses}")
        folder, action = self._find_action(uses)
        if unknown := sorted(set(inputs) - {item.name for item in action.inputs}):
            raise MlopsError(f"{uses} has no input {unknown[0]!r}")
        values: dict[str, str] = {}
        outside = self._scope(frame)
        for item in action.inputs:
            default = "" if item.default is None else to_text(render(item.default, outside))
            values[item.name] = inputs.get(item.name, default)
            if item.required and item.name not in inputs and item.default is None:
                raise MlopsError(f"{uses} needs the input {item.name!r}")
        inner = _Frame({}, values, {**frame.env, **env}, Defaults(), folder, frame.depth + 1)
        self._write("##[endgroup]")
        for step in action.steps:
            self._step(step, inner)
        scope = self._scope(inner)
        return inner.status, {name: to_text(render(value, scope)) for name, value in action.outputs.items()}

    def _find_action(self, uses: str) -> tuple[Path, CompositeAction]:
        """A local action: `./` is taken from the workspace, `$/` from the commit that the workflow runs at."""
        root = self.workspace
        if uses.startswith("$/"):
            root = self.temp / "actions"
            extract(self.forge.git, self.plan.event.sha, uses[2:].strip("/"), root)
        folder = (root / uses[2:]).resolve()
        if not folder.is_relative_to(root.resolve()):
            raise MlopsError(f"{uses} is outside the repository")
        for name in ("action.yml", "action.yaml"):
            if (folder / name).is_file():
                return folder, read_action((folder / name).read_bytes(), f"{uses[2:]}/{name}")
        fix = "run actions/checkout before a local action, or write $/" if uses.startswith("./") else ""
        raise MlopsError(f"Can't find 'action.yml' under {uses!r}", fix=fix)

    def _action(
        self, action: str, inputs: Mapping[str, str], frame: _Frame, env: Mapping[str, str]
    ) -> tuple[str, dict[str, str]]:
        for name, value in inputs.items():
            self._write(f"  {name}: {self.masks.hide(value)}")
        self._write("##[endgroup]")
        plan = self.plan
        listener = Listener(self.masks)
        call = Call(
            action=action,
            inputs=inputs,
            workspace=self.workspace,
            kept=self.place.kept,
            temp=self.temp,
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
            forge=self.forge,
            log=lambda line: self._write(listener.hear(line)),
            mask=self.masks.add,
            at_end=self.endings.append,
        )
        try:
            answer = perform(call, self.machine.twins)
        except MlopsError:
            raise
        except Exception as error:  # an SDK's error, or a registered function's: it fails the step, as on GitHub
            raise MlopsError(f"{action}: {type(error).__name__}: {error}") from error
        self.annotations += listener.annotations
        self.exported |= answer.exports
        self.paths = [*map(str, answer.paths), *self.paths]
        return "success", dict(answer.outputs)

    # --- what a step sees --------------------------------------------------------------------------------------------

    def _scope(self, frame: _Frame, env: Mapping[str, str] | None = None) -> Scope:
        contexts = self.plan.contexts
        github = dict(contexts["github"])
        github |= {"workspace": str(self.workspace), "token": self.plan.token, "job": self.plan.job.id}
        github["event_path"] = str(self.temp / "event.json")
        github["action_path"] = str(frame.action_path or "")
        status = "cancelled" if self.cancelled.is_set() else frame.status
        functions: dict[str, Callable[..., Any]] = {
            "success": lambda: status == "success",
            "failure": lambda: status == "failure",
            "cancelled": self.cancelled.is_set,
            "always": lambda: True,
            "hashfiles": lambda *patterns: hash_files(self.workspace, [to_text(pattern) for pattern in patterns]),
        }
        live = {
            "github": github,
            "env": {**self.job_env, **self.exported, **frame.env, **(env or {})},
            "inputs": frame.inputs,
            "steps": frame.steps,
            "job": {"status": status},
            "runner": self._runner(),
        }
        return Scope({**contexts, **live}, functions)

    def _runner(self) -> dict[str, str]:
        systems = {"Darwin": "macOS", "Windows": "Windows"}
        machines = {"x86_64": "X64", "AMD64": "X64", "arm64": "ARM64", "aarch64": "ARM64"}
        return {
            "name": "laptop",
            "os": systems.get(platform.system(), "Linux"),
            "arch": machines.get(platform.machine(), platform.machine().upper()),
            "temp": str(self.temp),
            "tool_cache": str(self.temp / "tools"),
            "environment": "self-hosted",
            "debug": "",
        }

    def _environ(self, frame: _Frame, env: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of a step: nothing of the caller's own but what the runner was told to give."""
        plan, event = self.plan, self.plan.event
        folders = [*self.paths, str(self.forge.bin), *map(str, self.machine.path), *SYSTEM_PATH]
        given = {name: value for name, value in self.machine.environ.items() if not _ACCESS.fullmatch(name)}
        nothing = str(self.temp / "no-access")
        github = {
            "ACTION_PATH": str(frame.action_path or ""),
            "ACTIONS": "true",
            "ACTOR": event.actor,
            "API_URL": f"{SERVER}/api/v3",
            "BASE_REF": event.base_ref,
            "EVENT_NAME": event.name,
            "EVENT_PATH": str(self.temp / "event.json"),
            "HEAD_REF": event.head_ref,
            "JOB": plan.job.id,
            "REF": event.ref,
            "REF_NAME": event.ref_name,
            "REF_TYPE": "tag" if event.ref.startswith("refs/tags/") else "branch",
            "REPOSITORY": plan.contexts["github"]["repository"],
            "REPOSITORY_OWNER": plan.contexts["github"]["repository_owner"],
            "RUN_ATTEMPT": str(plan.attempt),
            "RUN_ID": str(plan.number),
            "RUN_NUMBER": str(plan.number),
            "SERVER_URL": SERVER,
            "SHA": event.sha,
            "TRIGGERING_ACTOR": event.actor,
            "WORKFLOW": plan.workflow.name,
            "WORKFLOW_REF": plan.contexts["github"]["workflow_ref"],
            "WORKSPACE": str(self.workspace),
        }
        return {
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.scratch),
            "PYTHONPATH": str(self.workspace),
            **given,
            "AWS_SHARED_CREDENTIALS_FILE": nothing,
            "AWS_CONFIG_FILE": nothing,
            "GIT_ALLOW_PROTOCOL": "ext:file",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            **self.job_env,
            **self.exported,
            **frame.env,
            **env,
            "HOME": str(plan.work / "home"),
            "PATH": os.pathsep.join(folders),
            "CI": "true",
            "MLOPS_FORGE": str(self.forge.folder),
            TRACKING: self.plan.tracking,
            **{f"GITHUB_{name}": value for name, value in github.items()},
            **{f"RUNNER_{name.upper()}": value for name, value in self._runner().items()},
        }

    # --- the log -----------------------------------------------------------------------------------------------------

    def _write(self, line: str) -> None:
        with self._writing, contextlib.suppress(ValueError):  # a background process may speak after the end
            self.log.write(line + "\n")

    def _complain(self, message: str, level: str = "error") -> None:
        shown = self.masks.hide(message)
        self.annotations.append(Annotation(level, shown))
        self._write(f"##[{level}]{shown}")


def _plain_name(step: Step) -> str:
    """What GitHub calls a step without a name."""
    text = step.uses if step.run is None else next(iter(step.run.text.strip().splitlines()), "")
    return f"Run {text}"[:120]


def _git_setting(name: str, value: str) -> str:
    section, key = name.rsplit(".", 1)
    kind, _, of = section.partition(".")
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    title = f'{kind} "{of}"' if of else kind
    return f'[{title}]\n\t{key} = "{quoted}"'


def hash_files(workspace: Path, patterns: Sequence[str]) -> str:
    """The digest of the files that match (`!` takes some out again), or "" when none does.

    As `hashFiles()` of GitHub: the SHA-256 over the SHA-256 of each file, in the order of their names.
    """
    chosen: set[Path] = set()
    for pattern in patterns:
        for line in filter(None, (line.strip() for line in pattern.splitlines())):
            relative = line.removeprefix("!").lstrip("/").removeprefix("./")
            if ".." in relative.split("/"):
                raise MlopsError(f"hashFiles() only sees files inside the workspace, found {line!r}")
            found = {path for path in workspace.glob(relative) if path.is_file()}
            chosen = chosen - found if line.startswith("!") else chosen | found
    if not chosen:
        return ""
    total = hashlib.sha256()
    for path in sorted(chosen):
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
