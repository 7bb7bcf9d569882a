"""The laptop's GitHub as a server: one repository with its pull requests, comments, rules, apps and events.

Everything is in one folder: `repository.git`, `github.json` (the state, see `GitHubState`), `runs/` and `bin/` (the
programs that git and jobs start to reach the server). It emulates GitHub on one machine. It is not a security boundary:
the user who runs it owns the files.
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from laptop.faults import Faults
from laptop.github.forge.actors import Actor, RequestDeniedError, authenticate, digest, issue_token, revoke_token
from laptop.github.forge.bare_repository import NO_COMMIT, BareRepository, GitError
from laptop.github.forge.branch_moves import RefUpdate, announce_move, settle_moves
from laptop.github.forge.event_queue import common_payload, pull_request_event, queue_event
from laptop.github.forge.github_state import GitHubState, State, take_number, timestamp
from laptop.github.forge.issue_records import edit_issue, load_issue, load_issues, open_issue
from laptop.github.forge.merge_rules import MergeFacts, PullRequestRecord, Review, find_blockers
from laptop.github.forge.merging import check_collaborator, prepare_merge, queue_trial
from laptop.github.forge.pull_request_state import (
    add_pull,
    changes_of,
    load_pull,
    load_pulls,
    read_merge_facts,
    save_pull,
)
from laptop.github.forge.push_rules import WORKFLOWS, check_push
from laptop.github.forge.repository_creation import MAIN, create_repository
from laptop.github.forge.repository_settings import RepositorySettings
from laptop.github.forge.webhook_event import SERVER_URL, WebhookEvent
from pipelines.declarations.errors import MlopsError

_FULL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
_ROOT = Path(__file__).resolve().parents[3]
_LONGEST_COMMENT = 65_536
"""Characters; longer comments are cut."""


@dataclass(frozen=True)
class InstalledApp:
    """A GitHub App installed on the repository, with the credentials that a workflow needs for its token."""

    slug: str
    client_id: str
    private_key: str


class GitHubServer:
    """One hosted repository.

    Args:
        folder: holds everything; `home/github`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.repository = BareRepository(self.folder / "repository.git")
        self.bin = self.folder / "bin"
        self.state = GitHubState(self.folder)
        self._faults = Faults(self.folder.parent)

    # --- the repository ---

    def create(self, source: Path, full_name: str, settings: RepositorySettings) -> str:
        """Create the repository from a folder, as one commit on main, and return the commit.

        It takes the files that git tracks and new ones that git does not ignore; `source` is only read. No event is
        queued.

        Raises:
            MlopsError: there is a repository already, or the name is not `owner/name`.
        """
        if not _FULL_NAME.fullmatch(full_name):
            raise MlopsError(f"repository name: expected owner/name, found {full_name!r}")
        if self.state.exists():
            raise MlopsError(f"{self.folder} has a repository already", fix="remove the folder to start again")
        return create_repository(self.folder, self.repository, self.state, source, full_name, settings)

    @contextlib.contextmanager
    def change(self) -> Iterator[State]:
        """Yield the state, with announced moves settled, and write it when the block ends."""
        with self.state.change() as state:
            settle_moves(self.repository, state)
            yield state

    def settled(self) -> State:
        """Return the state, with announced moves settled."""
        state = self.state.read()
        if not state["moves"]:
            return state
        with self.change() as state:
            return state

    @property
    def full_name(self) -> str:
        """The repository's `owner/name`."""
        return str(self.state.peek()["repository"])

    @property
    def settings(self) -> RepositorySettings:
        return RepositorySettings.from_json(self.state.read()["settings"])

    def configure(self, settings: RepositorySettings) -> None:
        """Replace the settings."""
        with self.change() as state:
            state["settings"] = settings.to_json()
            state.pop("rulesets", None)

    # --- apps and tokens ---

    def register_app(self, slug: str, permissions: Mapping[str, str]) -> InstalledApp:
        """Install an app and return its credentials. The state keeps only a digest of the key."""
        app = InstalledApp(slug, f"Iv-{slug}", f"local-app-key-{os.urandom(24).hex()}")
        with self.change() as state:
            state["apps"][app.client_id] = {
                "slug": slug,
                "key": digest(app.private_key),
                "permissions": dict(permissions),
            }
        return app

    def app_actor(self, client_id: str, private_key: str, wanted: Mapping[str, str] | None = None) -> Actor:
        """Return the installed app that has these credentials.

        Args:
            client_id, private_key: the credentials.
            wanted: the permissions to grant, out of the app's own; all if None.

        Raises:
            RequestDeniedError: the credentials are wrong (401), or the app lacks a wanted permission (422).
        """
        found = self.state.read()["apps"].get(client_id)
        if found is None or not hmac.compare_digest(found["key"], digest(private_key)):
            fix = "check the app's id and private key"
            raise RequestDeniedError(401, "A JSON web token could not be decoded", fix=fix)
        actor = Actor(f"{found['slug']}[bot]", "app", found["permissions"])
        for scope, level in (wanted or {}).items():
            if not actor.may(scope, level):
                message = "The permissions requested are not granted to this installation."
                raise RequestDeniedError(422, message, fix=f"grant `{scope}: {level}` to the app {found['slug']}")
        self._refuse_by_fault(actor)
        return actor if wanted is None else replace(actor, permissions=dict(wanted))

    def issue_token(self, actor: Actor) -> str:
        """Return a new token for an actor."""
        with self.change() as state:
            return issue_token(state, actor)

    def revoke_token(self, token: str) -> None:
        """Revoke a token."""
        with self.change() as state:
            revoke_token(state, token)

    def authenticate(self, token: str) -> Actor:
        """Return the actor that a token belongs to.

        Raises:
            RequestDeniedError: the token is unknown (401), or the laptop has a fault.
        """
        actor = authenticate(self.state.read(), token)
        self._refuse_by_fault(actor)
        return actor

    def check_available(self) -> None:
        """Check that GitHub is not down.

        Raises:
            RequestDeniedError: it is (503).
        """
        if "github-down" in self._faults.active():
            raise RequestDeniedError(503, "Service Unavailable")

    def _refuse_by_fault(self, actor: Actor) -> None:
        """Refuse an actor because of a fault that was injected."""
        self.check_available()
        if "app-token-revoked" in self._faults.active() and actor.kind == "app":
            raise RequestDeniedError(401, "Bad credentials", fix="check the installation of the app and its key")

    # --- branches ---

    def workflow_files(self, commit_id: str) -> Mapping[str, bytes]:
        """Return path → content of a commit's workflow files, sorted by path."""
        return _workflow_files(self.repository, commit_id)

    def authorize(self, actor: Actor, updates: Sequence[RefUpdate]) -> None:
        """Check that an actor may push these updates; see `check_push`."""
        check_push(self.repository, self.state.read(), actor, updates)

    def tree_with(self, base: str, entries: Sequence[str]) -> str:
        """Return the id of a tree that has other files than another one.

        Args:
            base: the other tree.
            entries: `mode,blob,path` of each file to add or replace.
        """
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            self.repository.run("read-tree", base, environ=index)
            for entry in entries:
                self.repository.run("update-index", "--add", "--cacheinfo", entry, environ=index)
            return self.repository.run("write-tree", environ=index)

    def move_branch(self, actor: Actor, update: RefUpdate) -> None:
        """Create or move a branch, as a push would.

        Raises:
            RequestDeniedError: a rule or a permission forbids it.
            GitError: the branch moved in the meantime.
        """
        self.authorize(actor, [update])
        self.announce(actor, [update], os.getpid())
        try:
            self.repository.move_ref(update.ref, update.after, from_=update.before)
        except GitError:
            with self.change() as state:
                state["moves"] = [move for move in state["moves"] if move["after"] != update.after]
            raise
        self.settled()

    def delete_branch(self, actor: Actor, branch: str) -> None:
        """Delete a branch, as a push would. Its open pull requests are closed.

        Raises:
            RequestDeniedError: there is no such branch, or a rule or a permission forbids it.
        """
        ref = f"refs/heads/{branch}"
        before = self.repository.resolve(ref)
        if before is None:
            raise RequestDeniedError(422, "Reference does not exist")
        update = RefUpdate(ref, before, NO_COMMIT)
        self.authorize(actor, [update])
        self.announce(actor, [update], os.getpid())
        self.repository.run("update-ref", "-d", ref, before)
        self.settled()

    def announce(self, actor: Actor, updates: Sequence[RefUpdate], process: int) -> None:
        """Record that a process is about to move refs, so that a kill can't lose their events."""
        with self.change() as state:
            for update in updates:
                announce_move(state, actor, update, process)

    # --- pull requests ---

    def open_pull_request(
        self, actor: Actor, *, title: str, body: str, head: str, base: str = MAIN, labels: Sequence[str] = ()
    ) -> PullRequestRecord:
        """Open a pull request.

        Raises:
            RequestDeniedError: the token lacks a permission, a branch does not exist, or there is nothing to merge.
        """
        actor.need("write", "pull-requests")
        if not title.strip():
            raise RequestDeniedError(422, "Validation Failed: title can't be blank")
        with self.change() as state:
            _check_actions_may(state, actor, "create")
            commits = {name: self.repository.resolve(f"refs/heads/{name}") for name in (head, base)}
            for field, name in (("head", head), ("base", base)):
                if commits[name] is None:
                    message = f"Validation Failed: {field} {name!r} is not a branch"
                    raise RequestDeniedError(422, message, fix="push it first")
            for pull in load_pulls(state):
                if (pull.head, pull.base, pull.state) == (head, base, "OPEN"):
                    owner = state["repository"].split("/")[0]
                    raise RequestDeniedError(422, f"A pull request already exists for {owner}:{head}: #{pull.number}")
            tips = (str(commits[head]), str(commits[base]))
            if self.repository.contains(tips[1], tips[0]):
                raise RequestDeniedError(422, f"No commits between {base} and {head}")
            return add_pull(
                self.repository,
                state,
                actor,
                title=title,
                body=body,
                branches=(head, base),
                commits=tips,
                labels=labels,
            )

    def open_from_fork(self, login: str, fork: str, clone: Path, branch: str, *, title: str) -> PullRequestRecord:
        """Open a pull request to main from a fork.

        Args:
            login: the author, who need not have access to this repository.
            fork: full name of the fork.
            clone: a folder with the fork's content.
            branch: the fork's branch.
            title: the title.

        Raises:
            RequestDeniedError: the fork's name is not `owner/name`.
        """
        if not _FULL_NAME.fullmatch(fork):
            raise RequestDeniedError(422, f"Validation Failed: {fork!r} is not a repository name")
        ref = f"refs/forks/{fork}/{branch}"
        self.repository.run("fetch", "--quiet", "--no-tags", str(clone), f"+refs/heads/{branch}:{ref}")
        with self.change() as state:
            tips = (str(self.repository.resolve(ref)), str(self.repository.resolve_ref(MAIN)))
            author = Actor(login, "user", {})
            return add_pull(
                self.repository, state, author, title=title, body="", branches=(branch, MAIN), commits=tips, fork=fork
            )

    def try_merge(self, actor: Actor, number: int) -> str:
        """Request the checks of a merge queue (`merge_group`), and return the commit that they report on.

        There is no queue: nothing is merged when the checks pass, see `merge`.

        Raises:
            RequestDeniedError: the pull request conflicts with its base, or the token lacks a permission.
        """
        actor.need("write", "contents")
        with self.change() as state:
            return queue_trial(self.repository, state, actor, number)

    def pull_requests(self) -> list[PullRequestRecord]:
        """Return all pull requests, newest first."""
        return load_pulls(self.settled())

    def pull_request(self, number: int) -> PullRequestRecord:
        """Return one pull request.

        Raises:
            RequestDeniedError: there is no pull request with this number.
        """
        return load_pull(self.settled(), number)

    def files(self, pull: PullRequestRecord) -> tuple[str, ...]:
        """Return the paths that a pull request changes."""
        return tuple(path for path, _ in changes_of(self.repository, pull))

    def file_changes(self, number: int) -> list[tuple[str, str]]:
        """Return the paths that a pull request changes, each with `added`, `modified` or `removed`."""
        return changes_of(self.repository, self.pull_request(number))

    def commits(self, pull: PullRequestRecord) -> tuple[str, ...]:
        """Return the commits of a pull request, and the one that merged it."""
        own = self.repository.run("rev-list", pull.head_sha, f"^{pull.base_sha}").split()
        return (*own, *([pull.merge_commit] if pull.merge_commit else []))

    def merge_facts(self, pull: PullRequestRecord) -> MergeFacts:
        """Return the facts that the merge depends on."""
        return read_merge_facts(self.repository, self.settled(), pull)

    def blockers(self, pull: PullRequestRecord) -> list[str]:
        """Return the reasons why a pull request may not be merged; empty if it may."""
        state = self.settled()
        facts = read_merge_facts(self.repository, state, pull)
        return find_blockers(pull, facts, RepositorySettings.from_json(state["settings"]))

    def review(self, actor: Actor, number: int, *, approve: bool, body: str = "") -> Review:
        """Approve a pull request, or request changes.

        Raises:
            RequestDeniedError: the pull request is not open, is the reviewer's own, or the reviewer has no access.
        """
        actor.need("write", "pull-requests")
        with self.change() as state:
            _check_actions_may(state, actor, "approve")
            pull = _open_pull(state, number)
            if pull.author == actor.login:
                verb = "approve" if approve else "request changes on"
                raise RequestDeniedError(422, f"Can not {verb} your own pull request")
            check_collaborator(state, actor)
            verdict = "APPROVED" if approve else "CHANGES_REQUESTED"
            number = take_number(state, "review")
            review = Review(number, actor.login, verdict, body, pull.head_sha, timestamp())
            save_pull(state, replace(pull, reviews=(*pull.reviews, review), updated_at=timestamp()))
            return review

    def label(self, actor: Actor, number: int, label: str) -> None:
        """Add a label to a pull request."""
        actor.need("write", "pull-requests", "issues")
        with self.change() as state:
            pull = load_pull(state, number)
            if label not in pull.labels:
                pull = replace(pull, labels=(*pull.labels, label), updated_at=timestamp())
                self._save(state, actor, pull, "labeled", label={"name": label})

    def close(self, actor: Actor, number: int) -> None:
        """Close a pull request without merging it."""
        actor.need("write", "pull-requests")
        with self.change() as state:
            pull = replace(_open_pull(state, number), state="CLOSED", updated_at=timestamp())
            self._save(state, actor, pull, "closed")

    def reopen(self, actor: Actor, number: int) -> None:
        """Open a closed pull request again, with the present commit of its branch.

        Raises:
            RequestDeniedError: it is open or merged, its branch is gone or rewritten, or another one is open for it.
        """
        actor.need("write", "pull-requests")
        with self.change() as state:
            pull = load_pull(state, number)
            refused = "Validation Failed: state cannot be changed."
            if pull.state == "MERGED":
                raise RequestDeniedError(422, f"{refused} The pull request has been merged")
            if pull.state == "OPEN":
                raise RequestDeniedError(422, f"{refused} The pull request is open")
            ref = f"refs/forks/{pull.fork}/{pull.head}" if pull.fork else f"refs/heads/{pull.head}"
            head = self.repository.resolve(ref)
            if head is None:
                raise RequestDeniedError(422, f"{refused} The {pull.head} branch has been deleted")
            if not self.repository.contains(head, pull.head_sha):
                raise RequestDeniedError(422, f"{refused} The {pull.head} branch was force-pushed or recreated")
            for other in load_pulls(state):
                same = (other.head, other.base, other.fork) == (pull.head, pull.base, pull.fork)
                if same and other.state == "OPEN":
                    raise RequestDeniedError(422, f"{refused} There is already an open pull request: #{other.number}")
            base = self.repository.resolve_ref(pull.base) or pull.base_sha
            pull = replace(pull, state="OPEN", head_sha=head, base_sha=base, updated_at=timestamp())
            self._save(state, actor, pull, "reopened")

    def _save(self, state: State, actor: Actor, pull: PullRequestRecord, action: str, **extra: Any) -> None:
        save_pull(state, pull)
        event = pull_request_event(self.repository, state, actor, pull, action, **extra)
        queue_event(self.repository, state, actor, event)

    def merge(self, actor: Actor, number: int, method: str) -> str:
        """Merge a pull request and return the new commit on its base.

        Args:
            actor: merges.
            number: of the pull request.
            method: "squash" or "merge".

        Raises:
            RequestDeniedError: the rules forbid it (405), the token lacks a permission (403), or the base moved (409).
        """
        actor.need("write", "contents")
        with self.change() as state:
            update = prepare_merge(self.repository, state, actor, number, method)
            announce_move(state, actor, update, os.getpid(), pull=number)
        try:
            self.repository.move_ref(update.ref, update.after, from_=update.before)
        except GitError:
            with self.change() as state:
                state["moves"] = [move for move in state["moves"] if move["after"] != update.after]
            raise RequestDeniedError(409, "Base branch was modified. Review and try the merge again.") from None
        self.settled()
        return update.after

    # --- issues ---

    def open_issue(self, actor: Actor, title: str, body: str, labels: Sequence[str] = ()) -> dict[str, Any]:
        """Open an issue and return its record; see `open_issue`."""
        actor.need("write", "issues")
        with self.change() as state:
            return open_issue(state, actor, title, body, labels)

    def edit_issue(self, actor: Actor, number: int, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change an issue and return its record; see `edit_issue`."""
        actor.need("write", "issues")
        with self.change() as state:
            return edit_issue(state, number, changes)

    def issues(self) -> list[dict[str, Any]]:
        """Return the records of all issues, newest first."""
        return load_issues(self.state.read())

    # --- comments ---

    def comment(self, actor: Actor, number: int, body: str) -> dict[str, Any]:
        """Comment on an issue or a pull request and return the comment."""
        actor.need("write", "pull-requests", "issues")
        if not body.strip():
            raise RequestDeniedError(422, "Validation Failed: body can't be blank")
        with self.change() as state:
            if str(number) not in state["pulls"]:
                load_issue(state, number)
            now = timestamp()
            item = {"id": take_number(state, "comment"), "issue": number, "author": actor.login}
            item |= {"body": body[:_LONGEST_COMMENT], "created_at": now, "updated_at": now}
            state["comments"].append(item)
            return item

    def edit_comment(self, actor: Actor, comment_id: int, body: str) -> dict[str, Any]:
        """Replace a comment's text and return the comment."""
        actor.need("write", "pull-requests", "issues")
        with self.change() as state:
            for item in state["comments"]:
                if item["id"] == comment_id:
                    item |= {"body": body[:_LONGEST_COMMENT], "updated_at": timestamp()}
                    return dict(item)
        raise RequestDeniedError(404, "Not Found")

    def comments(self, number: int) -> list[dict[str, Any]]:
        """Return the comments on an issue or a pull request, oldest first."""
        return [item for item in self.state.read()["comments"] if item["issue"] == number]

    # --- other events ---

    def dispatch(self, actor: Actor, workflow: str, ref: str, inputs: Mapping[str, str]) -> None:
        """Start a workflow that has `workflow_dispatch`.

        Args:
            actor: starts it.
            workflow: its file name (`train.yml`), its path or its `name`.
            ref: a branch or a tag.
            inputs: name → text.

        Raises:
            RequestDeniedError: the workflow, the ref or an input is unknown, or the token lacks a permission.
        """
        from laptop.github.forge.dispatch import find_workflow, typed_inputs

        actor.need("write", "actions")
        with self.change() as state:
            refs = (f"refs/heads/{ref}", f"refs/tags/{ref}")
            full = next((each for each in refs if self.repository.resolve(each)), "")
            if not full:
                raise RequestDeniedError(422, f"No ref found for: {ref}")
            sha = str(self.repository.resolve(full))
            found = find_workflow(self.workflow_files(sha), workflow)
            payload = {
                **common_payload(state, actor),
                "ref": full,
                "workflow": found.path,
                "inputs": typed_inputs(found, inputs),
            }
            event = WebhookEvent("workflow_dispatch", payload, full, sha, actor.login, workflow=found.path)
            queue_event(self.repository, state, actor, event)

    def repository_dispatch(self, actor: Actor, event_type: str, client_payload: Mapping[str, Any]) -> None:
        """Report an event from elsewhere to the repository."""
        actor.need("write", "contents")
        if not 1 <= len(event_type) <= 100 or len(client_payload) > 10:
            message = "Invalid request: event_type has 1 to 100 characters, client_payload at most 10 keys"
            raise RequestDeniedError(422, message)
        with self.change() as state:
            payload = {**common_payload(state, actor), "action": event_type, "branch": MAIN}
            payload["client_payload"] = dict(client_payload)
            self._queue_on_main(state, actor, "repository_dispatch", payload, event_type)

    def tick(self, cron: str) -> None:
        """Fire a cron schedule: start the workflows on main that name it."""
        with self.change() as state:
            owner = Actor(state["repository"].split("/")[0], "user", {})
            self._queue_on_main(state, owner, "schedule", {**common_payload(state, owner), "schedule": cron}, cron)

    def _queue_on_main(self, state: State, actor: Actor, name: str, payload: dict[str, Any], action: str) -> None:
        sha = str(self.repository.resolve_ref(MAIN))
        event = WebhookEvent(name, payload, f"refs/heads/{MAIN}", sha, actor.login, action=action)
        queue_event(self.repository, state, actor, event)

    def suppressed(self) -> list[dict[str, str]]:
        """Return the last events that started no workflow, each with the reason."""
        return list(self.settled()["suppressed"])

    def changed_paths(self, state: State, event: WebhookEvent) -> tuple[str, ...]:
        """Return the paths that an event changes, for `paths` filters."""
        if event.name == "pull_request":
            return self.files(load_pull(state, event.payload["number"]))
        if event.name == "push":
            before = event.payload["before"]
            if before == NO_COMMIT:
                before = self.repository.run("merge-base", f"refs/heads/{MAIN}", event.sha)
            return self.repository.changed_files(before, event.sha)
        return ()

    # --- runs and checks ---

    def checks(self, commit_id: str) -> dict[str, dict[str, Any]]:
        """Return the checks of a commit: name → `conclusion` ("" while it runs), `workflow`, `run`."""
        return dict(self.state.read()["checks"].get(commit_id, {}))

    def runs(self) -> list[dict[str, Any]]:
        """Return the records of all workflow runs, newest first."""
        return sorted(self.state.read()["runs"].values(), key=lambda run: -run["number"])

    def cancel_run(self, actor: Actor, number: int) -> None:
        """Ask the runner to cancel a run.

        Raises:
            RequestDeniedError: not allowed (403), no such run (404), or it has ended (409).
        """
        actor.need("write", "actions")
        with self.change() as state:
            record = state["runs"].get(str(number))
            if record is None:
                raise RequestDeniedError(404, "Not Found")
            if record["status"] == "completed":
                raise RequestDeniedError(409, "Cannot cancel a workflow run that is completed")
            record["cancel"] = True

    def run_folder(self, number: int) -> Path:
        """Return the folder of a run's logs and results."""
        return self.folder / "runs" / str(number)

    def run_jobs(self, number: int) -> list[dict[str, Any]]:
        """Return the jobs of a run that have ended, as JSON."""
        return list(self._result(number)["jobs"])

    def run_problems(self, number: int) -> list[str]:
        """Return why a run did not start, or why it was abandoned."""
        return list(self._result(number)["problems"])

    def _result(self, number: int) -> dict[str, Any]:
        path = self.run_folder(number) / "run.json"
        return dict(json.loads(path.read_bytes())) if path.exists() else {"jobs": [], "problems": []}

    # --- git access ---

    def url(self) -> str:
        """Return the clone URL, which git only understands with the `insteadOf` of `remote_settings`."""
        return f"{SERVER_URL}/{self.full_name}"

    def remote_settings(self) -> dict[str, str]:
        """Return the git configuration that makes the clone URL reach this repository, through `bin/connect`."""
        connect = str(self.bin / "connect").replace("%", "%%").replace(" ", "% ")
        return {f"url.ext::{connect} %S .insteadOf": f"{SERVER_URL}/", "protocol.ext.allow": "always"}


@functools.lru_cache(maxsize=64)
def _workflow_files(repository: BareRepository, commit_id: str) -> Mapping[str, bytes]:
    """Read a commit's workflow files. A commit never changes, so the answer is cached."""
    listed = repository.list_files(commit_id, WORKFLOWS)
    return repository.read_files(commit_id, [path for path in listed if path.endswith((".yml", ".yaml"))])


def _check_actions_may(state: State, actor: Actor, verb: str) -> None:
    if actor.kind == "job" and not state["settings"]["actions_open_pull_requests"]:
        message = "GitHub Actions is not permitted to create or approve pull requests"
        fix = f"use a GitHub App's token to {verb} it, or set `actions_open_pull_requests` in the settings"
        raise RequestDeniedError(403, message, fix=fix)


def _open_pull(state: State, number: int) -> PullRequestRecord:
    pull = load_pull(state, number)
    if pull.state != "OPEN":
        raise RequestDeniedError(422, f"Pull request #{number} is {pull.state.lower()}")
    return pull
