"""The laptop's GitHub: a repository, its users, and the runner of its workflows."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from laptop.github.actions.remote import ActionHandler
from laptop.github.command_forks import CommandForks
from laptop.github.forge.actors import person
from laptop.github.forge.bare_repository import git, noreply_address
from laptop.github.forge.git_transport import authorization
from laptop.github.forge.github_server import GitHubServer, InstalledApp
from laptop.github.forge.merge_rules import PullRequestRecord
from laptop.github.forge.repository_settings import RepositorySettings
from laptop.github.forge.webhook_event import SERVER_URL
from laptop.github.runner.job_context import SYSTEM_PATH, RunnerMachine
from laptop.github.runner.results import StepProgress, WorkflowRun
from laptop.github.runner.workflow_runner import WorkflowRunner
from laptop.lifecycle import HOSTED
from pipelines.declarations.errors import MlopsError

_POLL_SECONDS = 0.02
"""Seconds between checks of the state."""


class Hub:
    """The laptop's GitHub with one repository.

    Methods take users by login. As on GitHub, only the users in the settings have write access.

    Args:
        home: the laptop's home; everything is under `home/github`.
        environ: variables for every step of every job (see `RunnerMachine.environ`).
        path: folders in front of the system's PATH.
        workers: how many jobs run at a time; the number of cores if None.
        handlers: functions that stand in for remote actions, by `owner/name`.
        on_step: called when a step ends.
        command_forks: start the Python commands of steps in forks of a process that has imported the large libraries.
    """

    def __init__(
        self,
        home: Path,
        *,
        environ: Mapping[str, str] | None = None,
        path: Sequence[Path] = (),
        workers: int | None = None,
        handlers: Mapping[str, ActionHandler] | None = None,
        on_step: Callable[[StepProgress], None] | None = None,
        command_forks: bool = False,
    ) -> None:
        self.server = GitHubServer(home / HOSTED)
        machine = RunnerMachine(
            environ or {},
            path,
            handlers or {},
            on_step or (lambda progress: None),
            CommandForks() if command_forks else None,
        )
        self.runner = WorkflowRunner(self.server, machine, workers)

    # --- the repository ---

    def exists(self) -> bool:
        """Return whether a repository was created."""
        return self.server.state.exists()

    def create(self, source: Path, repository: str = "acme/mlops", settings: RepositorySettings | None = None) -> str:
        """Create the repository from a folder, and return its first commit; see `GitHubServer.create`."""
        return self.server.create(source, repository, settings or RepositorySettings())

    def configure(self, settings: RepositorySettings) -> None:
        """Replace the settings."""
        self.server.configure(settings)

    def add_environment(self, name: str, branches: Sequence[str]) -> str:
        """Create an environment that jobs of some branches may enter, or replace these branches. Return its name."""
        with self.server.change() as state:
            settings = RepositorySettings.from_json(state["settings"])
            known = settings.find_environment(name) or name
            environments = {**settings.environments, known: tuple(branches)}
            state["settings"] = replace(settings, environments=environments).to_json()
        return known

    def secret(self, name: str, environment: str) -> str | None:
        """Return a secret of an environment; None if it has none of this name."""
        return self.runner.vault.own("secrets", environment).get(name)

    def set_secret(self, name: str, value: str, environment: str = "") -> None:
        """Set a secret of the repository, or of an environment."""
        self.runner.vault.set_secret(name, value, environment)

    def set_variable(self, name: str, value: str, environment: str = "") -> None:
        """Set a variable of the repository, or of an environment."""
        self.runner.vault.set_variable(name, value, environment)

    def register_app(self, slug: str, permissions: Mapping[str, str]) -> InstalledApp:
        """Install an app and return its credentials, for actions/create-github-app-token."""
        return self.server.register_app(slug, permissions)

    # --- users ---

    def add_user(self, user: str) -> None:
        """Give a user write access."""
        settings = self.server.settings
        if user not in settings.users:
            self.server.configure(replace(settings, users=(*settings.users, user)))

    def clone(self, to: Path, user: str) -> Path:
        """Clone the repository for a user, who commits and pushes from the clone. Return `to`."""
        if to.exists() and any(to.iterdir()):
            raise MlopsError(f"{to} is not empty", fix="clone into a new folder")
        token = self.server.issue_token(person(user))
        to.parent.mkdir(parents=True, exist_ok=True)
        git(to.parent, "clone", "--quiet", "--no-hardlinks", str(self.server.repository.path), str(to.resolve()))
        for name, value in {
            "remote.origin.url": self.server.url(),
            "user.name": user,
            "commit.gpgSign": "false",
            "user.email": noreply_address(user),
            f"http.{SERVER_URL}/.extraheader": authorization(token),
            **self.server.remote_settings(),
        }.items():
            git(to, "config", name, value)
        (to / ".git" / "config").chmod(0o600)
        return to

    def environ(self, user: str) -> dict[str, str]:
        """Variables with which `gh` and `mlops` work for a person: PATH, MLOPS_HOME, MLOPS_GITHUB, GH_REPO, GH_TOKEN.

        The token is new.
        """
        return {
            "PATH": ":".join((str(self.server.bin), *SYSTEM_PATH)),
            "MLOPS_HOME": str(self.server.folder.parent),
            "MLOPS_GITHUB": str(self.server.folder),
            "GH_REPO": self.server.full_name,
            "GH_TOKEN": self.server.issue_token(person(user)),
        }

    def open(
        self, user: str, head: str, title: str, *, body: str = "", base: str = "main", labels: Sequence[str] = ()
    ) -> PullRequestRecord:
        """Open a pull request for a pushed branch."""
        return self.server.open_pull_request(person(user), title=title, body=body, head=head, base=base, labels=labels)

    def approve(self, user: str, number: int, body: str = "") -> None:
        """Approve a pull request."""
        self.server.review(person(user), number, approve=True, body=body)

    def request_changes(self, user: str, number: int, body: str) -> None:
        """Request changes on a pull request."""
        self.server.review(person(user), number, approve=False, body=body)

    def comment(self, user: str, number: int, body: str) -> None:
        """Comment on a pull request."""
        self.server.comment(person(user), number, body)

    def merge(self, user: str, number: int, method: str = "squash") -> str:
        """Merge a pull request by "squash" or "merge", and return the new commit on its base."""
        return self.server.merge(person(user), number, method)

    def close(self, user: str, number: int) -> None:
        """Close a pull request without merging it."""
        self.server.close(person(user), number)

    def pull_requests(self) -> list[PullRequestRecord]:
        """Return all pull requests, newest first."""
        return self.server.pull_requests()

    def pull_request(self, number: int) -> PullRequestRecord:
        """Return one pull request."""
        return self.server.pull_request(number)

    def blockers(self, number: int) -> list[str]:
        """Return the reasons why a pull request may not be merged; empty if it may."""
        return self.server.blockers(self.server.pull_request(number))

    # --- workflows ---

    def dispatch(self, user: str, workflow: str, ref: str = "main", inputs: Mapping[str, str] | None = None) -> None:
        """Start a workflow that has `workflow_dispatch`."""
        self.server.dispatch(person(user), workflow, ref, inputs or {})

    def repository_dispatch(self, user: str, event_type: str, client_payload: Mapping[str, Any] | None = None) -> None:
        """Report an event from elsewhere to the repository."""
        self.server.repository_dispatch(person(user), event_type, client_payload or {})

    def tick(self, cron: str) -> None:
        """Fire a cron schedule."""
        self.server.tick(cron)

    def pump(self) -> list[WorkflowRun]:
        """Run all queued work, and the work that it starts, until none is left."""
        return self.runner.pump()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run workflows in the background until the block ends; then cancel the runs in progress."""
        stop = threading.Event()
        thread = threading.Thread(target=self.runner.serve, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def wait(self, workflow: str, *, after: int = 0, head_sha: str = "", seconds: float = 300.0) -> WorkflowRun:
        """Wait for the end of a run that another thread or process executes (see `serving`).

        Args:
            workflow: name of the workflow.
            after: the run has a higher number than this.
            head_sha: the commit that its checks report on; any if empty.
            seconds: time limit.

        Returns:
            The first such run.

        Raises:
            MlopsError: no such run ended in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            runs = [run for run in self.server.state.peek()["runs"].values() if run["workflow"] == workflow]
            found = [run for run in runs if run["number"] > after and head_sha in ("", run["head_sha"])]
            if found and (first := min(found, key=lambda run: int(run["number"])))["status"] == "completed":
                return self.run(first["number"])
            time.sleep(_POLL_SECONDS)
        raise MlopsError(f"no run of the workflow {workflow} ended within {seconds:g} s", fix="see the runs' logs")

    def newest(self) -> int:
        """Return the number of the newest run; 0 if there is none."""
        return max((run["number"] for run in self.server.state.peek()["runs"].values()), default=0)

    def rerun(self, number: int) -> None:
        """Queue another attempt of a run."""
        self.runner.rerun(number)

    def run(self, number: int) -> WorkflowRun:
        """Return the result of a run.

        Raises:
            MlopsError: there is no such run, or it has not started.
        """
        path = self.server.run_folder(number) / "run.json"
        if not path.exists():
            raise MlopsError(f"run {number} does not exist or has not started")
        return WorkflowRun.from_json(json.loads(path.read_bytes()))

    def runs(self) -> list[WorkflowRun]:
        """Return the results of all runs that have started, newest first."""
        numbers = [record["number"] for record in self.server.runs()]
        return [self.run(number) for number in numbers if (self.server.run_folder(number) / "run.json").exists()]

    def suppressed(self) -> list[dict[str, str]]:
        """Return the last events that started no workflow, each with the reason."""
        return self.server.suppressed()
