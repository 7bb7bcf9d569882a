"""Inputs of a job: its plan, its expression contexts, and the environment of its steps."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from laptop.github.actions.remote import ActionHandler
from laptop.github.command_forks import CommandForks
from laptop.github.forge.actors import Actor
from laptop.github.forge.webhook_event import SERVER_URL, WebhookEvent
from laptop.github.process_tracking import TRACKING
from laptop.github.runner.results import StepProgress
from laptop.github.workflow.definition import Defaults, Job, Workflow

LANGUAGE = "C.UTF-8"
"""LANG of every step."""

SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")

_ACCESS = re.compile(
    r"AWS_(?:ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|PROFILE|CONFIG_FILE)|AWS_SHARED_.*|AWS_CONTAINER_.*|AWS_WEB_.*"
)
"""Variables that give access to AWS."""


@dataclass(frozen=True)
class RunnerMachine:
    """Settings of the runner for every job.

    Attributes:
        environ: variables for every step. Those that give access to AWS are left out: as on GitHub, a job gets access
            from aws-actions/configure-aws-credentials.
        path: folders in front of the system's PATH.
        handlers: functions that stand in for remote actions, by `owner/name`.
        on_step: called when a step ends.
        command_forks: starts the Python commands of steps; None starts each as usual.
    """

    environ: Mapping[str, str] = field(default_factory=dict)
    path: Sequence[Path] = ()
    handlers: Mapping[str, ActionHandler] = field(default_factory=dict)
    on_step: Callable[[StepProgress], None] = lambda progress: None
    command_forks: CommandForks | None = None


@dataclass(frozen=True)
class JobPlan:
    """A job to run.

    Attributes:
        number, attempt: of the run.
        workflow: the workflow file.
        job: the job in it.
        name: the job's name, with the matrix values.
        event: the event that started the run.
        contexts: `github`, `needs`, `inputs`, `vars`, `secrets`, `matrix`, `strategy`.
        actor: owner of the job's token, with the job's permissions.
        token: the job's token.
        environment: deployment environment as the workflow writes it, or "".
        folder: folder for the log.
        work: folder for the job's home and temporary files; removed when the job ends.
        artifacts: the run's folder of artifacts.
        tracking: tracking id of the job's processes.
    """

    number: int
    attempt: int
    workflow: Workflow
    job: Job
    name: str
    event: WebhookEvent
    contexts: Mapping[str, Any]
    actor: Actor
    token: str
    environment: str
    folder: Path
    work: Path
    artifacts: Path
    tracking: str

    @property
    def temp(self) -> Path:
        """Folder for temporary files, `runner.temp`."""
        return self.work / "temp"

    @property
    def home(self) -> Path:
        """The job's HOME."""
        return self.work / "home"


@dataclass
class StepFrame:
    """The job itself, or a composite action in it: the scope that steps run in."""

    steps: dict[str, Any]
    inputs: Mapping[str, Any]
    env: Mapping[str, str]
    defaults: Defaults
    action_path: Path | None = None
    depth: int = 0
    status: str = "success"


def runner_context(temp: Path) -> dict[str, str]:
    """Return the `runner` context."""
    systems = {"Darwin": "macOS", "Windows": "Windows"}
    machines = {"x86_64": "X64", "AMD64": "X64", "arm64": "ARM64", "aarch64": "ARM64"}
    return {
        "name": "laptop",
        "os": systems.get(platform.system(), "Linux"),
        "arch": machines.get(platform.machine(), platform.machine().upper()),
        "temp": str(temp),
        "tool_cache": str(temp / "tools"),
        "environment": "self-hosted",
        "debug": "",
    }


def job_github_context(plan: JobPlan, workspace: Path, frame: StepFrame) -> dict[str, Any]:
    """Return the `github` context of a job's steps."""
    return {
        **plan.contexts["github"],
        "workspace": str(workspace),
        "token": plan.token,
        "job": plan.job.id,
        "event_path": str(plan.temp / "event.json"),
        "action_path": str(frame.action_path or ""),
    }


def step_environ(
    plan: JobPlan,
    machine: RunnerMachine,
    frame: StepFrame,
    *,
    workspace: Path,
    scratch: Path,
    github: Path,
    paths: Sequence[str],
    variables: Mapping[str, str],
) -> dict[str, str]:
    """Return the whole environment of a step. Nothing comes from the environment of the runner's own process.

    A workflow may set all variables but `GITHUB_*` and `RUNNER_*`, as on GitHub.

    Args:
        plan: the job.
        machine: settings of the runner.
        frame: the scope of the step.
        workspace: the job's folder.
        scratch: the job's TMPDIR.
        github: folder of the laptop's GitHub.
        paths: folders that earlier steps put in front of PATH.
        variables: variables of the job, of earlier steps and of the step.
    """
    folders = [*paths, str(github / "bin"), *map(str, machine.path), *SYSTEM_PATH]
    given = {name: value for name, value in machine.environ.items() if not _ACCESS.fullmatch(name)}
    no_access = str(plan.temp / "no-access")
    forks = machine.command_forks.environment if machine.command_forks is not None else {}
    return {
        "LANG": LANGUAGE,
        "TMPDIR": str(scratch),
        **forks,
        "PYTHONPATH": os.pathsep.join([*filter(None, [forks.get("PYTHONPATH")]), str(workspace)]),
        **given,
        "AWS_SHARED_CREDENTIALS_FILE": no_access,
        "AWS_CONFIG_FILE": no_access,
        "GIT_ALLOW_PROTOCOL": "ext:file",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "HOME": str(plan.home),
        "CI": "true",
        **variables,
        "PATH": os.pathsep.join([*paths, variables["PATH"]]) if "PATH" in variables else os.pathsep.join(folders),
        "MLOPS_GITHUB": str(github),
        TRACKING: plan.tracking,
        **{f"GITHUB_{name}": value for name, value in _github_variables(plan, workspace, frame).items()},
        **{f"RUNNER_{name.upper()}": value for name, value in runner_context(plan.temp).items()},
    }


def _github_variables(plan: JobPlan, workspace: Path, frame: StepFrame) -> dict[str, str]:
    event, github = plan.event, plan.contexts["github"]
    return {
        "ACTION_PATH": str(frame.action_path or ""),
        "ACTIONS": "true",
        "ACTOR": event.actor,
        "API_URL": f"{SERVER_URL}/api/v3",
        "BASE_REF": event.base_ref,
        "EVENT_NAME": event.name,
        "EVENT_PATH": str(plan.temp / "event.json"),
        "HEAD_REF": event.head_ref,
        "JOB": plan.job.id,
        "REF": event.ref,
        "REF_NAME": event.ref_name,
        "REF_TYPE": "tag" if event.ref.startswith("refs/tags/") else "branch",
        "REPOSITORY": github["repository"],
        "REPOSITORY_OWNER": github["repository_owner"],
        "RUN_ATTEMPT": str(plan.attempt),
        "RUN_ID": str(plan.number),
        "RUN_NUMBER": str(plan.number),
        "SERVER_URL": SERVER_URL,
        "SHA": event.sha,
        "TRIGGERING_ACTOR": event.actor,
        "WORKFLOW": plan.workflow.name,
        "WORKFLOW_REF": github["workflow_ref"],
        "WORKSPACE": str(workspace),
    }


def git_config(settings: Mapping[str, str]) -> str:
    """Return the text of a git configuration file.

    Args:
        settings: `section.key` or `section.subsection.key` → value.
    """
    lines = []
    for name, value in settings.items():
        section, key = name.rsplit(".", 1)
        kind, _, subsection = section.partition(".")
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        title = f'{kind} "{subsection}"' if subsection else kind
        lines.append(f'[{title}]\n\t{key} = "{quoted}"\n')
    return "".join(lines)
