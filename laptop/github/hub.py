"""The laptop's GitHub as a whole: a repository, the people on it, and the runner of its workflows."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from laptop.github.access import person
from laptop.github.actions import Twin
from laptop.github.events import SERVER
from laptop.github.forge import App, Forge
from laptop.github.git import git
from laptop.github.job import SYSTEM_PATH, Machine
from laptop.github.pulls import PullRequest
from laptop.github.results import Progress, Run
from laptop.github.runner import Runner
from laptop.github.settings import Settings
from laptop.github.transport import authorization
from pipelines.declarations.errors import MlopsError

_WATCH = 0.02
"""Seconds between looks at the state."""


class Hub:
    """One repository on the laptop, with everything that happens on it.

    People are named by their login; whoever is not among the settings' users is refused as on GitHub.

    Args:
        home: the local target's home; all is kept under `home/github`.
        environ: variables for every step of every job (see `Machine.environ`).
        path: folders in front of the system's PATH for every step.
        workers: how many jobs run at a time; the number of cores when None.
        twins: functions that stand for remote actions, by `owner/name`.
        on_step: hears of every step that ends.
    """

    def __init__(
        self,
        home: Path,
        *,
        environ: Mapping[str, str] | None = None,
        path: Sequence[Path] = (),
        workers: int | None = None,
        twins: Mapping[str, Twin] | None = None,
        on_step: Callable[[Progress], None] | None = None,
    ) -> None:
        self.forge = Forge(home / "github")
        machine = Machine(environ or {}, path, twins or {}, on_step or (lambda progress: None))
        self.runner = Runner(self.forge, machine, workers)

    # --- the repository ----------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return self.forge.store.exists()

    def create(self, source: Path, repository: str = "acme/mlops", settings: Settings | None = None) -> str:
        """Make the repository from a folder (see `Forge.create`), and return its first commit."""
        return self.forge.create(source, repository, settings or Settings())

    def configure(self, settings: Settings) -> None:
        """Replace the settings."""
        self.forge.configure(settings)

    def set_secret(self, name: str, value: str, environment: str = "") -> None:
        """Set a secret of the repository, or of one environment."""
        self.runner.vault.set_secret(name, value, environment)

    def set_variable(self, name: str, value: str, environment: str = "") -> None:
        """Set a variable of the repository, or of one environment."""
        self.runner.vault.set_variable(name, value, environment)

    def register_app(self, slug: str, permissions: Mapping[str, str]) -> App:
        """Install an app; its id and key belong into a variable and a secret, for create-github-app-token."""
        return self.forge.register_app(slug, permissions)

    # --- people ------------------------------------------------------------------------------------------------------

    def add_user(self, user: str) -> None:
        """Let a person write to the repository."""
        settings = self.forge.settings
        if user not in settings.users:
            self.forge.configure(replace(settings, users=(*settings.users, user)))

    def clone(self, to: Path, user: str) -> Path:
        """A clone in which `user` commits and pushes as themselves. Returns `to`."""
        if to.exists() and any(to.iterdir()):
            raise MlopsError(f"{to} is not empty", fix="clone into a new folder")
        token = self.forge.token(person(user))
        to.parent.mkdir(parents=True, exist_ok=True)
        git(to.parent, "clone", "--quiet", "--no-hardlinks", str(self.forge.git), str(to.resolve()))
        for name, value in {
            "remote.origin.url": self.forge.url(),
            "user.name": user,
            "commit.gpgSign": "false",
            "user.email": f"{user}@users.noreply.github.localhost",
            f"http.{SERVER}/.extraheader": authorization(token),
            **self.forge.remote_settings(),
        }.items():
            git(to, "config", name, value)
        (to / ".git" / "config").chmod(0o600)
        return to

    def environ(self, user: str) -> dict[str, str]:
        """Variables with which `gh` works for a person: PATH, MLOPS_FORGE, GH_REPO and GH_TOKEN."""
        return {
            "PATH": ":".join((str(self.forge.bin), *SYSTEM_PATH)),
            "MLOPS_FORGE": str(self.forge.folder),
            "GH_REPO": self.forge.repository,
            "GH_TOKEN": self.forge.token(person(user)),
        }

    def open(
        self, user: str, head: str, title: str, *, body: str = "", base: str = "main", labels: Sequence[str] = ()
    ) -> PullRequest:
        """Open a pull request for a branch that was pushed."""
        return self.forge.open_pull_request(person(user), title=title, body=body, head=head, base=base, labels=labels)

    def approve(self, user: str, number: int, body: str = "") -> None:
        """Approve a pull request."""
        self.forge.review(person(user), number, approve=True, body=body)

    def request_changes(self, user: str, number: int, body: str) -> None:
        """Ask for changes on a pull request."""
        self.forge.review(person(user), number, approve=False, body=body)

    def comment(self, user: str, number: int, body: str) -> None:
        """Comment on a pull request."""
        self.forge.comment(person(user), number, body)

    def merge(self, user: str, number: int, method: str = "squash") -> str:
        """Merge a pull request ("squash" or "merge"), and return the new commit on its base."""
        return self.forge.merge(person(user), number, method)

    def close(self, user: str, number: int) -> None:
        """Close a pull request without merging it."""
        self.forge.close(person(user), number)

    def pull_requests(self) -> list[PullRequest]:
        """All pull requests, newest first."""
        return self.forge.pull_requests()

    def pull_request(self, number: int) -> PullRequest:
        """One pull request."""
        return self.forge.pull_request(number)

    def blockers(self, number: int) -> list[str]:
        """Why a pull request may not be merged; empty when it may."""
        return self.forge.blockers(self.forge.pull_request(number))

    # --- workflows ---------------------------------------------------------------------------------------------------

    def dispatch(self, user: str, workflow: str, ref: str = "main", inputs: Mapping[str, str] | None = None) -> None:
        """Start a workflow by hand."""
        self.forge.dispatch(person(user), workflow, ref, inputs or {})

    def repository_dispatch(self, user: str, event_type: str, client_payload: Mapping[str, Any] | None = None) -> None:
        """Tell the repository that something happened elsewhere."""
        self.forge.repository_dispatch(person(user), event_type, client_payload or {})

    def tick(self, cron: str) -> None:
        """The hour of a schedule has come."""
        self.forge.tick(cron)

    def pump(self) -> list[Run]:
        """Run everything that waits, and everything that this starts, until nothing is left to do."""
        return self.runner.pump()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run whatever comes up, in the background, until the block ends; what is under way then is cancelled."""
        stop = threading.Event()
        thread = threading.Thread(target=self.runner.serve, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def wait(self, workflow: str, *, after: int = 0, head_sha: str = "", seconds: float = 300.0) -> Run:
        """Wait for a run to end, which somebody else runs (see `serving`).

        Args:
            workflow: its name.
            after: the run's number is higher than this.
            head_sha: the commit that it is about; any when empty.
            seconds: how long to wait.

        Returns:
            The first such run, at its end.

        Raises:
            MlopsError: there was none, or it did not end.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            runs = [run for run in self.forge.store.look()["runs"].values() if run["workflow"] == workflow]
            found = [run for run in runs if run["number"] > after and head_sha in ("", run["head_sha"])]
            if found and (first := min(found, key=lambda run: int(run["number"])))["status"] == "completed":
                return self.run(first["number"])
            time.sleep(_WATCH)
        raise MlopsError(f"no run of the workflow {workflow} ended within {seconds:g} s", fix="see the runs' logs")

    def newest(self) -> int:
        """The number of the newest run; 0 before the first."""
        return max((run["number"] for run in self.forge.store.look()["runs"].values()), default=0)

    def rerun(self, number: int) -> None:
        """Queue another attempt of a run."""
        self.runner.rerun(number)

    def run(self, number: int) -> Run:
        """What a run came to.

        Raises:
            MlopsError: there is none with this number, or it has not begun.
        """
        path = self.forge.run_folder(number) / "run.json"
        if not path.exists():
            raise MlopsError(f"run {number} has not begun, or there is none")
        return Run.from_json(json.loads(path.read_bytes()))

    def runs(self) -> list[Run]:
        """What the runs that have begun came to, newest first."""
        numbers = [record["number"] for record in self.forge.runs()]
        return [self.run(number) for number in numbers if (self.forge.run_folder(number) / "run.json").exists()]

    def suppressed(self) -> list[dict[str, str]]:
        """The last events that started nothing, each with the reason."""
        return self.forge.suppressed()
