"""Two environments, a git repository with its origin, real bundles, and an endpoint that serves what was applied.

What is applied, and what is live, is in files, so that a process that is killed leaves behind what it had done.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3

from pipelines.declarations.bundle import Bundle, BundledFile, DatasetVersion, Source
from pipelines.declarations.digests import digest_of_bytes, digest_of_file, digest_of_folder, digest_of_value
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.github.repository import Repository
from pipelines.promotion.facts import Facts
from pipelines.promotion.gather import Change
from pipelines.promotion.promote import Context
from pipelines.promotion.promote import Effects as PromoteEffects
from pipelines.promotion.replicate import replicate
from pipelines.promotion.restore import restore_release
from pipelines.promotion.rollback import Effects as RollbackEffects
from pipelines.promotion.rollback import Plan
from pipelines.registry import bundles, evidence
from pipelines.registry.ledger import Entry, Event, Ledger, verify_chain
from pipelines.registry.quarantine import quarantined
from tests.answering import serving
from tests.pipelines.serving.bundles import linear_bundle
from tests.sample_project import ROOT, copy_as_forked
from tests.signed import example_build

MODEL = "diabetes-progression"
DATASET = "diabetes-patients"
ACCEPTED = json.loads((ROOT / "tests" / "refused" / "accepted.json").read_text())
EVALUATION = ACCEPTED["evaluation"]
RELEASE = f"models/{MODEL}/releases/staging.yaml"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_repository(folder: Path) -> Project:
    """The tests' own declarations in a clone of a bare origin, on main."""
    root = copy_as_forked(folder / "clone", "requirements/serving.txt")
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "remote", "add", "origin", str(folder / "origin.git"))
    commit_all(root, "start")
    return Project(root)


def commit_all(root: Path, message: str) -> str:
    """Commit everything on main and push it; the commit."""
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", message)
    git(root, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    git(root, "fetch", "--quiet", "origin")
    return git(root, "rev-parse", "HEAD")


def accepted(_project: Any, _repository: Any, _descriptors: Any, change: Change) -> Facts:
    """Facts that every gate lets pass, in the place of `gather`: for tests of what comes after the judgement."""
    release = change.release
    about = {"release": release.model_dump(mode="json"), "changed_files": list(change.files), "live": release.replaces}
    return Facts.model_validate_json(json.dumps(ACCEPTED | about))


@dataclass
class World:
    """What the tests of promotions work in.

    Attributes:
        project: the clone.
        dev, staging: the environments.
        state: the folder with what is applied and what is live.
        url: of the endpoint of staging.
        start: the first commit.
        said: what the steps told.
        registered: seed → digest of what was registered in dev already; a bundle stays what it is.
        brought: the bundles that are in staging.
    """

    project: Project
    dev: EnvironmentDescriptor
    staging: EnvironmentDescriptor
    state: Path
    url: str
    start: str
    said: list[str] = field(default_factory=list)
    registered: dict[int, str] = field(default_factory=dict)
    brought: set[str] = field(default_factory=set)

    @property
    def root(self) -> Path:
        return self.project.root

    @property
    def repository(self) -> Repository:
        return Repository(self.root)

    @property
    def descriptors(self) -> dict[str, EnvironmentDescriptor]:
        return {"dev": self.dev, "staging": self.staging}

    def context(self, **changes: Any) -> Context:
        values: dict[str, Any] = {"commit": self.repository.head(), "actor": "ann", "run": "run-1"}
        return Context(**values | changes)

    def register(self, seed: int, *, commit: str | None = None, golden: float | None = None, **changes: Any) -> str:
        """Train and register a bundle in dev, as the training job does; its digest.

        Args:
            seed: makes it another bundle.
            commit: that it was made from; main's unless said.
            golden: what it says that it predicts, if that is not what it does.
            changes: of the manifest.
        """
        plain = commit is None and golden is None and not changes
        if plain and seed in self.registered:
            return self.registered[seed]
        manifest, files = self.bundle(seed, golden=golden, **changes)
        bundles.push(self.dev, manifest, files)
        gates = digest_of_value(self.project.model(MODEL).gates.model_dump(mode="json"))
        evidence.attest(self.dev, manifest, gates, example_build("dev", commit=commit or self.repository.head()))
        if plain and self.repository.head() == self.start:
            self.registered[seed] = manifest.digest
        return manifest.digest

    def bring(self, digest: str) -> None:
        """Let staging have a bundle."""
        if digest not in self.brought:
            replicate(self.dev, self.staging, MODEL, digest)
            self.brought.add(digest)

    def bundle(self, seed: int, *, golden: float | None = None, **changes: Any) -> tuple[Bundle, dict[str, bytes]]:
        made = linear_bundle() if golden is None else linear_bundle(expected=golden)
        files = {**made.files, "evaluation.json": json.dumps(EVALUATION).encode(), "card.md": b"# A card\n"}
        files |= changes.pop("files", {})
        values: dict[str, Any] = {
            "model": MODEL,
            "task": "regression",
            "files": {n: BundledFile(sha256=digest_of_bytes(c), size=len(c)) for n, c in files.items()},
            "source": Source(
                model=digest_of_folder(self.root / "models" / MODEL, without=("releases",)),
                **dict.fromkeys(("pipelines", "requirements"), digest_of_bytes(b"source")),
            ),
            "contract": digest_of_file(self.project.contract_file(DATASET)),
            "dataset": DatasetVersion(
                dataset=DATASET, table=f"lake.{DATASET}", snapshot="1", content=digest_of_bytes(b"rows"), rows=442
            ),
            "image": digest_of_bytes(b"image"),
            "parameters": {"alpha": 1.0},
            "seed": seed,
        }
        return Bundle(**values | changes), files

    def verify_in_dev(self, digest: str, *, at: datetime | None = None) -> None:
        """Let dev have served a bundle well: a record in its ledger."""
        ledger = Ledger(self.dev, MODEL)
        head = ledger.head()
        before = head.event.live if head else None
        event = Event.of(
            attempt=f"dev/{digest}", action="promotion", result="verified", before=before, to=digest, live=digest
        )
        when = at or datetime.now(UTC) - timedelta(minutes=5)
        ledger.append(lambda _: event.model_copy(update={"at": when}))

    def log_requests(self, digest: str, count: int = 25, **changes: Any) -> None:
        """Let dev's endpoint have logged requests, now."""
        now = datetime.now(UTC)
        record = {"time": now.isoformat(), "bundle": digest, **changes}
        key = f"inference/{MODEL}/{now:%Y/%m/%d/%H}/pod-{digest[-8:]}.jsonl"
        body = (json.dumps(record).encode() + b"\n") * count
        boto3.client("s3").put_object(Bucket=self.dev.logs_bucket, Key=key, Body=body)

    def ready(self, seed: int, **changes: Any) -> str:
        """A bundle that every gate lets into staging."""
        digest = self.register(seed, **changes)
        self.verify_in_dev(digest)
        self.log_requests(digest)
        return digest

    def release(self, digest: str | None, replaces: str | None, environment: str = "staging") -> Change:
        """Merge a release: one commit that changes one file."""
        git(self.root, "fetch", "--quiet", "origin")
        git(self.root, "checkout", "--quiet", "--detach", "origin/main")
        wanted = Release(model=MODEL, environment=environment, bundle=digest, replaces=replaces)
        path = self.project.release_file(MODEL, environment)
        path.write_text(render_release(wanted))
        commit_all(self.root, f"Release {MODEL} to {environment}")
        return Change(wanted, (path.relative_to(self.root).as_posix(),))

    # --- the environment outside of the registry ---

    def applied(self) -> str | None:
        return self._read("applied")

    def live(self) -> str | None:
        return self._read("live")

    def set_live(self, digest: str | None) -> None:
        for name in ("applied", "live"):
            (self.state / name).write_text(digest or "")

    def _read(self, name: str) -> str | None:
        path = self.state / name
        return path.read_text() or None if path.is_file() else None

    def apply(self) -> None:
        (self.state / "applied").write_text(self.project.release(MODEL, "staging").bundle or "")

    def follow(self, model: str) -> None:
        assert model == MODEL
        (self.state / "live").write_text(self.applied() or "")

    def move(self, model: str, digest: str) -> None:
        assert model == MODEL
        self.set_live(digest)

    def effects(self, **changes: Any) -> PromoteEffects:
        values: dict[str, Any] = {
            "apply": self.apply,
            "follow": self.follow,
            "descriptor": lambda: self.staging,
            "take_back": self.move,
            "say": self.said.append,
        }
        return PromoteEffects(**values | changes)

    def rollback_effects(self, reason: str, **changes: Any) -> RollbackEffects:
        def restore(plan: Plan) -> None:
            restore_release(self.project, MODEL, "staging", plan.target, plan.bad, reason)

        values: dict[str, Any] = {"move_traffic": self.move, "restore": restore, "say": self.said.append}
        return RollbackEffects(**values | changes)

    # --- what became of it ---

    def records(self, environment: str = "staging") -> list[Entry]:
        """Every record, oldest first; the whole chain is verified."""
        descriptor = self.descriptors[environment]
        ledger = Ledger(descriptor, MODEL)
        return verify_chain((ledger.envelope(n) for n in range(1, ledger.newest() + 1)), descriptor, MODEL)

    def story(self) -> list[tuple[str, str, str, str | None]]:
        """Action, result, to and live of every record of staging."""
        return [(e.event.action, e.event.result, e.event.to, e.event.live) for e in self.records()]

    def end_state(self) -> dict[str, Any]:
        """Everything that must be the same however often the way there was interrupted."""
        git(self.root, "fetch", "--quiet", "origin")
        return {
            "story": self.story(),
            "applied": self.applied(),
            "live": self.live(),
            "quarantined": quarantined(self.staging, MODEL),
            "release": git(self.root, "show", f"origin/main:{RELEASE}"),
            "commits": git(self.root, "rev-list", "--count", "origin/main"),
            "bundles": bundles.list_digests(self.staging, MODEL),
        }

    def reset(self, *, keep_bundles: bool = False) -> None:
        """Begin anew: nothing live or served, git at its first commit. Bundles stay in dev, and at will in staging."""
        for kind in ("ledger/", "quarantine/", "reports/"):
            for descriptor in self.descriptors.values():
                empty(descriptor.registry_bucket, kind)
        if not keep_bundles:
            empty(self.staging.registry_bucket)
            self.brought.clear()
        empty(self.dev.logs_bucket)
        for name in ("applied", "live"):
            (self.state / name).unlink(missing_ok=True)
        git(self.root.parent / "origin.git", "update-ref", "refs/heads/main", self.start)
        git(self.root, "update-ref", "refs/remotes/origin/main", self.start)
        git(self.root, "checkout", "--quiet", "--force", "--detach", self.start)
        git(self.root, "clean", "--quiet", "--force", "-d")
        self.said.clear()


def empty(bucket: str, prefix: str = "") -> None:
    """Delete all objects under a prefix."""
    s3 = boto3.client("s3")
    keys = [{"Key": entry["Key"]} for entry in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())]
    if keys:
        s3.delete_objects(Bucket=bucket, Delete={"Objects": keys})


class Served:
    """Answers as the pods of the live bundle would; the bundles are read from dev's registry, once each."""

    def __init__(self, state: Path, registry: EnvironmentDescriptor) -> None:
        self.state = state
        self.registry = registry
        self._models: dict[str, Any] = {}

    def answer(self, _method: str, path: str, body: bytes) -> tuple[int, bytes]:
        from pipelines.serving.model import Model
        from pipelines.serving.refusal import Refusal

        live = (self.state / "live").read_text() if (self.state / "live").is_file() else ""
        if not live:
            return 503, b"{}"
        if live not in self._models:
            fetched = bundles.fetch(self.registry, MODEL, live)
            self._models[live] = Model(fetched.manifest, fetched.files)
        model = self._models[live]
        if not path.endswith("/infer"):
            return 200, json.dumps(model.metadata()).encode()
        try:
            return 200, model.answer(body, b"id").body
        except Refusal as refusal:
            return refusal.status, json.dumps({"error": refusal.message}).encode()


@contextmanager
def running_world(folder: Path, dev: EnvironmentDescriptor, staging: EnvironmentDescriptor) -> Iterator[World]:
    """A world in a folder."""
    state = folder / "state"
    state.mkdir(parents=True)
    with serving(Served(state, dev).answer) as url:
        project = make_repository(folder / "git")
        staging = staging.model_copy(update={"endpoints": {MODEL: url}})
        yield World(project, dev, staging, state, url, git(project.root, "rev-parse", "HEAD"))
