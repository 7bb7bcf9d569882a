"""The laptop's repository hosting: a bare git repository, its pull requests, its rules, and what happens on it.

Everything is in one folder: `repository.git`, `forge.json` (all else, changed under a lock and replaced as a whole) and
`bin/` (what git and jobs run to come back here). A change of a branch and of the state cannot be one write, so each is
announced first (`moves`): whoever looks next finishes what a killed process left, or forgets what it had not begun.

It is a twin for one machine, not a security boundary: whoever runs here owns the files.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from laptop.github import payloads
from laptop.github.access import Actor, RefusedError, authenticate, digest, issue_token, revoke_token
from laptop.github.codeowners import PLACES, read_rules
from laptop.github.events import SERVER, Event
from laptop.github.git import (
    NOBODY,
    GitError,
    changed_files,
    commit,
    git,
    merged_tree,
    read_file,
    resolve,
)
from laptop.github.processes import alive, identity
from laptop.github.pulls import MergeFacts, PullRequest, Review, blockers
from laptop.github.settings import Settings
from laptop.github.store import State, Store
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.files import write_atomically

MAIN = "main"
WORKFLOWS = ".github/workflows/"
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
_ROOT = Path(__file__).resolve().parents[2]
_SKIP = re.compile(r"\[(?:skip ci|ci skip|no ci|skip actions|actions skip)\]")
_LOUD = ("workflow_dispatch", "repository_dispatch")
"""The events that start workflows even when a job's own token causes them."""


@dataclass(frozen=True)
class RefUpdate:
    """A ref that is to move; `NOBODY` stands for no commit."""

    ref: str
    before: str
    after: str


@dataclass(frozen=True)
class App:
    """A GitHub App installed on the repository, with what a workflow needs to get a token of it."""

    slug: str
    client_id: str
    private_key: str


class Forge:
    """One hosted repository.

    Args:
        folder: `home/github`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.git = self.folder / "repository.git"
        self.bin = self.folder / "bin"
        self.store = Store(self.folder)

    # --- the repository ----------------------------------------------------------------------------------------------

    def create(self, source: Path, repository: str, settings: Settings) -> str:
        """Make the repository from a folder, as one commit on main, and return the commit.

        What git tracks there and what it would (not ignored) is taken; `source` is only read. No event is made.

        Raises:
            MlopsError: there is a repository already, or the name is not `owner/name`.
        """
        if not _REPOSITORY.fullmatch(repository):
            raise MlopsError(f"the repository's name must be owner/name, found {repository!r}")
        if self.store.exists():
            raise MlopsError(f"there is a repository in {self.folder} already", fix="remove the folder to start anew")
        self.bin.mkdir(parents=True, exist_ok=True, mode=0o700)
        git(self.folder, "init", "--quiet", "--bare", "--template=", f"--initial-branch={MAIN}", str(self.git))
        (self.git / "hooks").mkdir()
        with (self.git / "config").open("a", encoding="utf-8") as config:
            config.write("[gc]\n\tauto = 0\n[uploadpack]\n\tallowAnySHA1InWant = true\n")
        self._write_executables()
        environ = {"GIT_DIR": str(self.git), "GIT_WORK_TREE": str(source.resolve())}
        environ["GIT_INDEX_FILE"] = str(self.folder / "first-index")
        git(source, "update-index", "--add", "-z", "--stdin", text="\0".join(_files(source)), environ=environ)
        first = commit(
            self.git, git(source, "write-tree", environ=environ), (), "First commit\n", repository.split("/")[0]
        )
        (self.folder / "first-index").unlink()
        git(self.git, "update-ref", f"refs/heads/{MAIN}", first)
        # Every checkout fetches from here: a pack is sent as it is, loose objects are packed each time.
        git(self.git, "repack", "-a", "-d", "--quiet", "--window=0")
        names = ("issue", "comment", "review", "run", "slot", "move")
        empty: dict[str, Any] = {name: {} for name in ("tokens", "apps", "pulls", "checks", "runs")}
        lists: dict[str, Any] = {name: [] for name in ("comments", "events", "suppressed", "slots", "moves")}
        start: State = {"repository": repository, "next": dict.fromkeys(names, 1), "settings": settings.to_json()}
        self.store.create({**start, **empty, **lists})
        return first

    def _write_executables(self) -> None:
        python, root = shlex.quote(sys.executable), json.dumps(str(_ROOT))
        programs = {
            self.bin / "gh": "laptop.github.gh",
            self.bin / "connect": "laptop.github.transport",
            self.git / "hooks" / "pre-receive": "laptop.github.hooks",
        }
        for path, module in programs.items():
            # Isolated (-I): a job's PYTHONPATH must not decide what runs here. Git waits for all but gh, so without
            # installed packages (-S), which take longer to find than all the rest.
            options = "-I" if path.name == "gh" else "-I -S"
            code = f"import sys; sys.path.insert(0, {root}); from {module} import main; sys.exit(main(sys.argv[1:]))"
            folder = shlex.quote(str(self.folder))
            text = f"#!/bin/sh\nMLOPS_FORGE=${{MLOPS_FORGE:-{folder}}}\nexport MLOPS_FORGE\n"
            write_atomically(path, f'{text}exec {python} {options} -c {shlex.quote(code)} "$@"\n')
            path.chmod(0o700)

    @contextlib.contextmanager
    def change(self) -> Iterator[State]:
        """The state, to be changed; what a killed process left half done is settled first."""
        with self.store.change() as state:
            self._settle(state)
            yield state

    @property
    def repository(self) -> str:
        return str(self.store.read()["repository"])

    @property
    def settings(self) -> Settings:
        return Settings.from_json(self.store.read()["settings"])

    def configure(self, settings: Settings) -> None:
        """Replace the settings."""
        with self.change() as state:
            state["settings"] = settings.to_json()

    def register_app(self, slug: str, permissions: Mapping[str, str]) -> App:
        """Install an app and return its credentials; the state keeps a digest of the key only."""
        app = App(slug, f"Iv-{slug}", f"local-app-key-{os.urandom(24).hex()}")
        with self.change() as state:
            state["apps"][app.client_id] = {
                "slug": slug,
                "key": digest(app.private_key),
                "permissions": dict(permissions),
            }
        return app

    def app_actor(self, client_id: str, private_key: str, wanted: Mapping[str, str] | None = None) -> Actor:
        """The installed app that these credentials are of, with `wanted` of its permissions (None: all).

        Raises:
            RefusedError: the credentials are wrong (401), or the app lacks a wanted permission (422).
        """
        found = self.store.read()["apps"].get(client_id)
        if found is None or not hmac.compare_digest(found["key"], digest(private_key)):
            raise RefusedError(401, "A JSON web token could not be decoded", fix="check the app's id and private key")
        actor = Actor(f"{found['slug']}[bot]", "app", found["permissions"])
        for scope, level in (wanted or {}).items():
            if not actor.may(scope, level):
                message = "The permissions requested are not granted to this installation."
                raise RefusedError(422, message, fix=f"grant `{scope}: {level}` to the app {found['slug']}")
        return actor if wanted is None else replace(actor, permissions=dict(wanted))

    def token(self, actor: Actor) -> str:
        """A new token that speaks for `actor`."""
        with self.change() as state:
            return issue_token(state, actor)

    def revoke(self, token: str) -> None:
        with self.change() as state:
            revoke_token(state, token)

    def authenticate(self, token: str) -> Actor:
        """Whoever `token` speaks for.

        Raises:
            RefusedError: nobody.
        """
        return authenticate(self.store.read(), token)

    # --- branches ----------------------------------------------------------------------------------------------------

    def commit_of(self, ref: str) -> str | None:
        """The commit of a branch, a tag, a full ref or a commit id."""
        for candidate in (f"refs/heads/{ref}", f"refs/tags/{ref}", ref):
            if (found := resolve(self.git, candidate)) is not None:
                return found
        return None

    def file(self, commit_id: str, path: str) -> bytes | None:
        """A file's content at a commit, or None."""
        return read_file(self.git, commit_id, path)

    def workflow_paths(self, commit_id: str) -> tuple[str, ...]:
        """The workflow files at a commit."""
        listed = git(self.git, "ls-tree", "--name-only", "-z", commit_id, WORKFLOWS).split("\0")
        return tuple(path for path in listed if path.endswith((".yml", ".yaml")))

    def authorize(self, actor: Actor, updates: Sequence[RefUpdate]) -> None:
        """May `actor` push these updates?

        Raises:
            RefusedError: no; in GitHub's words.
        """
        actor.need("write", "contents")
        state = self.store.read()
        settings = Settings.from_json(state["settings"])
        if actor.kind == "user" and actor.login not in settings.users:
            raise RefusedError(403, f"Permission to {state['repository']}.git denied to {actor.login}.")
        for update in updates:
            if not update.ref.startswith(("refs/heads/", "refs/tags/")):
                raise RefusedError(422, f"{update.ref}: deny updating a hidden ref")
            if update.ref == f"refs/heads/{MAIN}" and settings.protection and not self._bypasses(actor, settings):
                fix = "push to another branch and open a pull request"
                raise RefusedError(
                    422, f"protected branch {MAIN}: changes must be made through a pull request", fix=fix
                )
            if actor.kind != "user" and update.after != NOBODY:
                self._refuse_workflow_changes(actor, update)

    def _refuse_workflow_changes(self, actor: Actor, update: RefUpdate) -> None:
        base = update.before if update.before != NOBODY else self.commit_of(MAIN) or NOBODY
        touched = [path for path in changed_files(self.git, base, update.after) if path.startswith(WORKFLOWS)]
        # What is on main already is no change of theirs: a branch that is renewed brings it along.
        touched = [path for path in touched if self.file(update.after, path) != self.file(MAIN, path)]
        if touched and not actor.may("workflows", "write"):
            message = f"refusing to allow a GitHub App to create or update workflow `{touched[0]}`"
            raise RefusedError(403, f"{message} without `workflows` permission")

    @staticmethod
    def _bypasses(actor: Actor, settings: Settings) -> bool:
        return actor.kind == "app" and settings.protection is not None and actor.slug in settings.protection.bypass

    def announce(self, actor: Actor, updates: Sequence[RefUpdate], process: int) -> None:
        """Say that `process` is about to move refs, so that nobody's kill can lose the events of it."""
        with self.change() as state:
            for update in updates:
                self._announce(state, actor, update, process)

    @staticmethod
    def _announce(state: State, actor: Actor, update: RefUpdate, process: int, **extra: Any) -> None:
        move = {"ref": update.ref, "before": update.before, "after": update.after, "process": identity(process)}
        state["moves"].append({**move, "login": actor.login, "kind": actor.kind, **extra})

    def settled(self) -> State:
        """The state, with the moves that happened turned into events."""
        state = self.store.read()
        if not state["moves"]:
            return state
        with self.change() as state:
            return state

    def _settle(self, state: State) -> None:
        moves, state["moves"] = state["moves"], []
        for move in moves:
            if (resolve(self.git, move["ref"]) or NOBODY) == move["after"]:
                self._moved(state, move)
            elif alive(move["process"]):
                state["moves"].append(move)

    def _moved(self, state: State, move: Mapping[str, Any]) -> None:
        actor = Actor(move["login"], move["kind"], {})
        update = RefUpdate(move["ref"], move["before"], move["after"])
        if "pull" in move:
            self._merged(state, actor, move["pull"], update.after)
        if update.ref.startswith("refs/heads/"):
            self._follow(state, actor, update)
        if update.after != NOBODY:
            self._emit(state, actor, self._push_event(state, actor, update))

    def _push_event(self, state: State, actor: Actor, update: RefUpdate) -> Event:
        head = self._commit_payload(update.after)
        payload = {
            **self._about(state, actor),
            "ref": update.ref,
            "before": update.before,
            "after": update.after,
            "created": update.before == NOBODY,
            "deleted": False,
            "forced": update.before != NOBODY and not self._contains(update.after, update.before),
            "pusher": {"name": actor.login},
            "head_commit": head,
            "commits": [head],
        }
        return Event("push", payload, update.ref, update.after, actor.login, head_sha=update.after)

    def _commit_payload(self, commit_id: str) -> dict[str, Any]:
        author, email, when, message = git(self.git, "log", "-1", "--format=%an%n%ae%n%aI%n%B", commit_id).split(
            "\n", 3
        )
        return {
            "id": commit_id,
            "message": message.strip(),
            "timestamp": when,
            "author": {"name": author, "email": email},
        }

    def _contains(self, commit_id: str, older: str) -> bool:
        try:
            git(self.git, "merge-base", "--is-ancestor", older, commit_id)
        except GitError:
            return False
        return True

    def _about(self, state: State, actor: Actor) -> dict[str, Any]:
        private = bool(state["settings"]["private"])
        return {
            "repository": payloads.repository(state["repository"], private=private),
            "sender": payloads.user(actor.login),
        }

    def _emit(self, state: State, actor: Actor, event: Event) -> None:
        """Queue an event, unless GitHub would start nothing for it; then keep why."""
        why = ""
        if actor.kind == "job" and event.name not in _LOUD:
            why = "caused with GITHUB_TOKEN; use a GitHub App's token for what must start workflows"
        elif event.name == "pull_request" and not event.sha:
            why = "the pull request conflicts with its base"
        elif event.name in ("push", "pull_request") and event.head_sha:
            message = self._commit_payload(event.head_sha)["message"]
            why = "the commit's message asks to skip" if _SKIP.search(message) else ""
        if why:
            state["suppressed"] = [
                *state["suppressed"][-99:],
                {"event": event.name, "action": event.action, "why": why},
            ]
        else:
            state["events"].append(event.to_json())

    # --- pull requests -----------------------------------------------------------------------------------------------

    def open_pull_request(
        self, actor: Actor, *, title: str, body: str, head: str, base: str = MAIN, labels: Sequence[str] = ()
    ) -> PullRequest:
        """Open a pull request.

        Raises:
            RefusedError: the token may not, a branch does not exist, or there is nothing to merge.
        """
        actor.need("write", "pull-requests")
        if not title.strip():
            raise RefusedError(422, "Validation Failed: title can't be blank")
        with self.change() as state:
            self._refuse_actions(state, actor, "create")
            shas = {name: resolve(self.git, f"refs/heads/{name}") for name in (head, base)}
            for field, name in (("head", head), ("base", base)):
                if shas[name] is None:
                    raise RefusedError(422, f"Validation Failed: {field} {name!r} is not a branch", fix="push it first")
            for pull in self._pulls(state):
                if (pull.head, pull.base, pull.state) == (head, base, "OPEN"):
                    owner = state["repository"].split("/")[0]
                    raise RefusedError(422, f"A pull request already exists for {owner}:{head}: #{pull.number}")
            if self._contains(str(shas[base]), str(shas[head])):
                raise RefusedError(422, f"No commits between {base} and {head}")
            commits = (str(shas[head]), str(shas[base]))
            return self._opened(state, actor, title, body, (head, base), commits, labels=labels)

    def open_from_fork(self, login: str, fork: str, clone: Path, branch: str, *, title: str) -> PullRequest:
        """Open a pull request of somebody who may not write here.

        Args:
            login: who.
            fork: the name of their repository, `owner/name`.
            clone: what is in it.
            branch: of it; main is what it is to be merged into.

        Raises:
            RefusedError: the name is none.
        """
        if not _REPOSITORY.fullmatch(fork):
            raise RefusedError(422, f"Validation Failed: {fork!r} is no repository")
        ref = f"refs/forks/{fork}/{branch}"
        git(self.git, "fetch", "--quiet", "--no-tags", str(clone), f"+refs/heads/{branch}:{ref}")
        with self.change() as state:
            commits = (str(resolve(self.git, ref)), str(self.commit_of(MAIN)))
            return self._opened(state, Actor(login, "user", {}), title, "", (branch, MAIN), commits, fork=fork)

    def _opened(
        self,
        state: State,
        actor: Actor,
        title: str,
        body: str,
        branches: tuple[str, str],
        commits: tuple[str, str],
        *,
        labels: Sequence[str] = (),
        fork: str = "",
    ) -> PullRequest:
        now = timestamp()
        pull = PullRequest(
            number=take(state, "issue"),
            title=title,
            body=body,
            author=actor.login,
            head=branches[0],
            base=branches[1],
            head_sha=commits[0],
            base_sha=commits[1],
            state="OPEN",
            labels=tuple(dict.fromkeys(labels)),
            created_at=now,
            updated_at=now,
            fork=fork,
        )
        self._save(state, pull)
        self._emit(state, actor, self._pull_event(state, actor, pull, "opened"))
        return pull

    def try_merge(self, actor: Actor, number: int) -> str:
        """Ask for the checks of a merge queue (`merge_group`), and return the commit that they are reported on.

        The queue itself is not here: nothing is merged when they pass, see `merge`.

        Raises:
            RefusedError: it conflicts with its base, or the token may not.
        """
        actor.need("write", "contents")
        with self.change() as state:
            pull = self._pull(state, number)
            base = str(self.commit_of(pull.base))
            tree = merged_tree(self.git, base, pull.head_sha)
            if tree is None:
                raise RefusedError(405, f"Pull request #{number} conflicts with {pull.base}")
            head = commit(self.git, tree, (base,), self._squash_message(pull, base), pull.author)
            ref = f"refs/heads/gh-readonly-queue/{pull.base}/pr-{number}-{base}"
            git(self.git, "update-ref", ref, head)
            group: dict[str, Any] = {
                "head_sha": head,
                "head_ref": ref,
                "base_sha": base,
                "base_ref": f"refs/heads/{pull.base}",
            }
            group["head_commit"] = self._commit_payload(head)
            payload = {**self._about(state, actor), "action": "checks_requested", "merge_group": group}
            event = Event("merge_group", payload, ref, head, actor.login, action="checks_requested", head_sha=head)
            self._emit(state, actor, event)
            return head

    @staticmethod
    def _refuse_actions(state: State, actor: Actor, verb: str) -> None:
        if actor.kind == "job" and not state["settings"]["actions_open_pull_requests"]:
            message = "GitHub Actions is not permitted to create or approve pull requests"
            fix = f"let a GitHub App's token {verb} it, or switch `actions_open_pull_requests` on in the settings"
            raise RefusedError(403, message, fix=fix)

    def pull_requests(self) -> list[PullRequest]:
        """All pull requests, newest first."""
        return self._pulls(self.settled())

    def pull_request(self, number: int) -> PullRequest:
        """One pull request.

        Raises:
            RefusedError: there is none with this number.
        """
        return self._pull(self.settled(), number)

    @staticmethod
    def _pulls(state: State) -> list[PullRequest]:
        found = [PullRequest.from_json(value) for value in state["pulls"].values()]
        return sorted(found, key=lambda pull: -pull.number)

    @staticmethod
    def _pull(state: State, number: int) -> PullRequest:
        if str(number) not in state["pulls"]:
            raise RefusedError(404, f"Could not resolve to a PullRequest with the number of {number}.")
        return PullRequest.from_json(state["pulls"][str(number)])

    @staticmethod
    def _save(state: State, pull: PullRequest) -> None:
        state["pulls"][str(pull.number)] = pull.to_json()

    def files(self, pull: PullRequest) -> tuple[str, ...]:
        """The files that a pull request changes (since it left its base)."""
        base = pull.base_sha if pull.state != "OPEN" else self.commit_of(pull.base) or pull.base_sha
        return changed_files(self.git, git(self.git, "merge-base", base, pull.head_sha), pull.head_sha)

    def commits(self, pull: PullRequest) -> tuple[str, ...]:
        """The commits that a pull request brings, and the one that merged it."""
        own = git(self.git, "rev-list", pull.head_sha, f"^{pull.base_sha}").split()
        return (*own, *([pull.merge_commit] if pull.merge_commit else []))

    def file_changes(self, number: int) -> list[tuple[str, str]]:
        """The files that a pull request changes, each with `added`, `modified` or `removed`."""
        pull = self.pull_request(number)
        base = pull.base_sha if pull.state != "OPEN" else self.commit_of(pull.base) or pull.base_sha
        since = git(self.git, "merge-base", base, pull.head_sha)
        listed = git(self.git, "diff", "--name-status", "-z", "--no-renames", since, pull.head_sha).split("\0")[:-1]
        words = {"A": "added", "D": "removed"}
        return [(path, words.get(letter, "modified")) for letter, path in zip(listed[::2], listed[1::2], strict=True)]

    def facts(self, pull: PullRequest) -> MergeFacts:
        """What the merge depends on."""
        return self._facts(self.settled(), pull)

    def _facts(self, state: State, pull: PullRequest) -> MergeFacts:
        base = self.commit_of(pull.base) or pull.base_sha
        owners = next((text for place in PLACES if (text := self.file(base, place)) is not None), b"")
        checks = state["checks"].get(pull.head_sha, {})
        return MergeFacts(
            conflict=merged_tree(self.git, base, pull.head_sha) is None,
            behind=not self._contains(pull.head_sha, base),
            files=self.files(pull),
            rules=read_rules(owners.decode("utf-8", errors="replace")),
            checks={name: check["conclusion"] for name, check in checks.items()},
        )

    def blockers(self, pull: PullRequest) -> list[str]:
        """Why the rules forbid the merge; empty when they allow it."""
        state = self.settled()
        return blockers(pull, self._facts(state, pull), Settings.from_json(state["settings"]))

    def review(self, actor: Actor, number: int, *, approve: bool, body: str = "") -> Review:
        """Review a pull request: approve it, or ask for changes.

        Raises:
            RefusedError: it is not open, is the reviewer's own, or the reviewer may not.
        """
        actor.need("write", "pull-requests")
        with self.change() as state:
            self._refuse_actions(state, actor, "approve")
            pull = self._pull(state, number)
            if pull.state != "OPEN":
                raise RefusedError(422, f"Pull request #{number} is {pull.state.lower()}")
            if pull.author == actor.login:
                what = "approve" if approve else "request changes on"
                raise RefusedError(422, f"Can not {what} your own pull request")
            if actor.kind == "user" and actor.login not in state["settings"]["users"]:
                raise RefusedError(403, f"{actor.login} is not a collaborator of {state['repository']}")
            verdict = "APPROVED" if approve else "CHANGES_REQUESTED"
            review = Review(take(state, "review"), actor.login, verdict, body, pull.head_sha, timestamp())
            self._save(state, replace(pull, reviews=(*pull.reviews, review), updated_at=timestamp()))
            return review

    def label(self, actor: Actor, number: int, label: str) -> None:
        """Put a label on a pull request."""
        actor.need("write", "pull-requests", "issues")
        with self.change() as state:
            pull = self._pull(state, number)
            if label not in pull.labels:
                pull = replace(pull, labels=(*pull.labels, label), updated_at=timestamp())
                self._save(state, pull)
                self._emit(state, actor, self._pull_event(state, actor, pull, "labeled", label={"name": label}))

    def close(self, actor: Actor, number: int) -> None:
        """Close a pull request without merging it."""
        actor.need("write", "pull-requests")
        with self.change() as state:
            pull = self._pull(state, number)
            if pull.state != "OPEN":
                raise RefusedError(422, f"Pull request #{number} is {pull.state.lower()}")
            pull = replace(pull, state="CLOSED", updated_at=timestamp())
            self._save(state, pull)
            self._emit(state, actor, self._pull_event(state, actor, pull, "closed"))

    def merge(self, actor: Actor, number: int, method: str) -> str:
        """Merge a pull request and return the commit on its base.

        Args:
            method: "squash" or "merge".

        Raises:
            RefusedError: the rules forbid it (405), or the token may not (403).
        """
        actor.need("write", "contents")
        with self.change() as state:
            pull = self._pull(state, number)
            settings = Settings.from_json(state["settings"])
            facts = self._facts(state, pull)
            if actor.kind == "user" and actor.login not in settings.users:
                raise RefusedError(403, f"{actor.login} is not a collaborator of {state['repository']}")
            rules = replace(settings, protection=None) if self._bypasses(actor, settings) else settings
            if reasons := blockers(pull, facts, rules):
                message = f"Pull request #{number} is not mergeable: the base branch policy prohibits the merge"
                raise RefusedError(405, message, fix=f"wanted: {'; '.join(reasons)}")
            base = str(self.commit_of(pull.base))
            tree = str(merged_tree(self.git, base, pull.head_sha))
            if method == "squash":
                merged = commit(self.git, tree, (base,), self._squash_message(pull, base), pull.author)
            else:
                owner = state["repository"].split("/")[0]
                message = f"Merge pull request #{number} from {owner}/{pull.head}\n\n{pull.title}\n"
                merged = commit(self.git, tree, (base, pull.head_sha), message, actor.login)
            update = RefUpdate(f"refs/heads/{pull.base}", base, merged)
            self._announce(state, actor, update, os.getpid(), pull=number)
        try:
            git(self.git, "update-ref", update.ref, update.after, update.before)
        except GitError:
            with self.change() as state:
                state["moves"] = [move for move in state["moves"] if move["after"] != merged]
            raise RefusedError(409, "Base branch was modified. Review and try the merge again.") from None
        self.settled()
        return merged

    def _squash_message(self, pull: PullRequest, base: str) -> str:
        subjects = git(self.git, "log", "--reverse", "--format=* %s", f"{base}..{pull.head_sha}")
        single = git(self.git, "log", "-1", "--format=%b", pull.head_sha)
        body = subjects if "\n" in subjects else single.strip()
        return f"{pull.title} (#{pull.number})\n\n{body}\n" if body else f"{pull.title} (#{pull.number})\n"

    def _merged(self, state: State, actor: Actor, number: int, merged: str) -> None:
        pull = self._pull(state, number)
        now = timestamp()
        base = git(self.git, "rev-parse", f"{merged}^1")
        pull = replace(pull, state="MERGED", base_sha=base, merged_by=actor.login, merge_commit=merged)
        pull = replace(pull, merged_at=now, updated_at=now)
        self._save(state, pull)
        self._emit(state, actor, self._pull_event(state, actor, pull, "closed"))

    def _follow(self, state: State, actor: Actor, update: RefUpdate) -> None:
        """Pull requests follow their branch: a push updates them, deleting it closes them."""
        branch = update.ref.removeprefix("refs/heads/")
        dismiss = (state["settings"]["protection"] or {}).get("dismiss_stale", False)
        for pull in self._pulls(state):
            if pull.head != branch or pull.state != "OPEN" or pull.fork:
                continue
            if update.after == NOBODY:
                pull, action = replace(pull, state="CLOSED", updated_at=timestamp()), "closed"
            else:
                base = self.commit_of(pull.base) or pull.base_sha
                pull = replace(pull, head_sha=update.after, base_sha=base, updated_at=timestamp())
                pull, action = (pull.dismissed() if dismiss else pull), "synchronize"
            self._save(state, pull)
            extra = {"before": update.before, "after": update.after}
            self._emit(state, actor, self._pull_event(state, actor, pull, action, **extra))

    def _pull_event(self, state: State, actor: Actor, pull: PullRequest, action: str, **extra: Any) -> Event:
        ref = f"refs/pull/{pull.number}/merge"
        sha = pull.merge_commit or self._merge_ref(pull)
        about = self._about(state, actor)
        body = payloads.pull_request(pull, about["repository"], mergeable=bool(sha))
        payload = {**about, "action": action, "number": pull.number, "pull_request": body, **extra}
        return Event(
            "pull_request",
            payload,
            ref,
            sha,
            actor.login,
            action=action,
            head_ref=pull.head,
            base_ref=pull.base,
            head_sha=pull.head_sha,
        )

    def _merge_ref(self, pull: PullRequest) -> str:
        """The commit that merges the head into the base for a trial, which workflows run on; "" on a conflict."""
        git(self.git, "update-ref", f"refs/pull/{pull.number}/head", pull.head_sha)
        base = self.commit_of(pull.base) or pull.base_sha
        tree = merged_tree(self.git, base, pull.head_sha)
        if tree is None:
            return ""
        merged = commit(self.git, tree, (base, pull.head_sha), f"Merge {pull.head_sha} into {base}\n", pull.author)
        git(self.git, "update-ref", f"refs/pull/{pull.number}/merge", merged)
        return merged

    # --- comments ----------------------------------------------------------------------------------------------------

    def comment(self, actor: Actor, number: int, body: str) -> dict[str, Any]:
        """Comment on a pull request."""
        actor.need("write", "pull-requests", "issues")
        if not body.strip():
            raise RefusedError(422, "Validation Failed: body can't be blank")
        with self.change() as state:
            self._pull(state, number)
            now = timestamp()
            item = {"id": take(state, "comment"), "issue": number, "author": actor.login, "body": body[:65536]}
            item |= {"created_at": now, "updated_at": now}
            state["comments"].append(item)
            return item

    def edit_comment(self, actor: Actor, comment_id: int, body: str) -> dict[str, Any]:
        """Replace a comment's text."""
        actor.need("write", "pull-requests", "issues")
        with self.change() as state:
            for item in state["comments"]:
                if item["id"] == comment_id:
                    item |= {"body": body[:65536], "updated_at": timestamp()}
                    return dict(item)
        raise RefusedError(404, "Not Found")

    def comments(self, number: int) -> list[dict[str, Any]]:
        """The comments on a pull request, oldest first."""
        return [item for item in self.store.read()["comments"] if item["issue"] == number]

    # --- other events ------------------------------------------------------------------------------------------------

    def dispatch(self, actor: Actor, workflow: str, ref: str, inputs: Mapping[str, str]) -> None:
        """Start a workflow that has `workflow_dispatch`.

        Args:
            workflow: its file name (`train.yml`), its path or its `name`.
            ref: a branch or a tag.
            inputs: name → text.

        Raises:
            RefusedError: there is no such workflow, ref or input, or the token may not.
        """
        from laptop.github.dispatch import find_workflow, typed_inputs

        actor.need("write", "actions")
        with self.change() as state:
            full = next(
                (f"refs/{kind}/{ref}" for kind in ("heads", "tags") if resolve(self.git, f"refs/{kind}/{ref}")), ""
            )
            if not full:
                raise RefusedError(422, f"No ref found for: {ref}")
            sha = str(resolve(self.git, full))
            files = {path: self.file(sha, path) or b"" for path in self.workflow_paths(sha)}
            found = find_workflow(files, workflow)
            payload = {
                **self._about(state, actor),
                "ref": full,
                "workflow": found.path,
                "inputs": typed_inputs(found, inputs),
            }
            self._emit(state, actor, Event("workflow_dispatch", payload, full, sha, actor.login, workflow=found.path))

    def repository_dispatch(self, actor: Actor, event_type: str, client_payload: Mapping[str, Any]) -> None:
        """Tell the repository that something happened elsewhere."""
        actor.need("write", "contents")
        if not 1 <= len(event_type) <= 100 or len(client_payload) > 10:
            raise RefusedError(
                422, "Invalid request: event_type has 1 to 100 characters, client_payload at most 10 keys"
            )
        with self.change() as state:
            sha = str(self.commit_of(MAIN))
            payload = {**self._about(state, actor), "action": event_type, "branch": MAIN}
            payload["client_payload"] = dict(client_payload)
            ref = f"refs/heads/{MAIN}"
            self._emit(state, actor, Event("repository_dispatch", payload, ref, sha, actor.login, action=event_type))

    def tick(self, cron: str) -> None:
        """The hour of a schedule has come: start the workflows on main that name this cron."""
        with self.change() as state:
            owner = Actor(state["repository"].split("/")[0], "user", {})
            payload = {**self._about(state, owner), "schedule": cron}
            event = Event(
                "schedule", payload, f"refs/heads/{MAIN}", str(self.commit_of(MAIN)), owner.login, action=cron
            )
            self._emit(state, owner, event)

    def suppressed(self) -> list[dict[str, str]]:
        """The last events that started nothing, each with the reason."""
        return list(self.settled()["suppressed"])

    def changed_in(self, state: State, event: Event) -> tuple[str, ...]:
        """The files that an event changes, as `paths` filters see them."""
        if event.name == "pull_request":
            return self.files(self._pull(state, event.payload["number"]))
        if event.name == "push":
            before = event.payload["before"]
            if before == NOBODY:
                before = git(self.git, "merge-base", MAIN, event.sha)
            return changed_files(self.git, before, event.sha)
        return ()

    # --- runs and checks ---------------------------------------------------------------------------------------------

    def checks(self, commit_id: str) -> dict[str, dict[str, Any]]:
        """The checks of a commit: name → `conclusion` ("" while it runs), `workflow`, `run`."""
        return dict(self.store.read()["checks"].get(commit_id, {}))

    def runs(self) -> list[dict[str, Any]]:
        """The workflow runs, newest first, as the state keeps them."""
        return sorted(self.store.read()["runs"].values(), key=lambda run: -run["number"])

    def run_folder(self, number: int) -> Path:
        """Where a run's logs and results are."""
        return self.folder / "runs" / str(number)

    def run_jobs(self, number: int) -> list[dict[str, Any]]:
        """The jobs of a run, as its result says; empty before it has one."""
        path = self.run_folder(number) / "run.json"
        return list(json.loads(path.read_bytes())["jobs"]) if path.exists() else []

    # --- how git reaches it ------------------------------------------------------------------------------------------

    def url(self) -> str:
        """The clone address, which only means something with the `insteadOf` of `remote_settings`."""
        return f"{SERVER}/{self.repository}"

    def remote_settings(self) -> dict[str, str]:
        """The git configuration by which that address reaches this repository, through `bin/connect`."""
        connect = str(self.bin / "connect").replace("%", "%%").replace(" ", "% ")
        return {f"url.ext::{connect} %S .insteadOf": f"{SERVER}/", "protocol.ext.allow": "always"}


def _files(source: Path) -> list[str]:
    """What git would commit of a folder: tracked, or neither tracked nor ignored; all files of a plain folder."""
    try:
        listed = git(source, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    except GitError:
        found = (path for path in sorted(source.rglob("*")) if path.is_file() or path.is_symlink())
        return [path.relative_to(source).as_posix() for path in found if ".git" not in path.parts]
    return sorted({name for name in listed if name and os.path.lexists(source / name)})


def take(state: State, name: str) -> int:
    """The next number of a kind (`issue`, `run`, …)."""
    number = int(state["next"][name])
    state["next"][name] = number + 1
    return number


def timestamp() -> str:
    """Now, in UTC, as GitHub writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
