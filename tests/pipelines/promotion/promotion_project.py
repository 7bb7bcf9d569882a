"""A project to promote in: a clone with an origin, two environments, ONNX bundles, and an endpoint.

The applied and the live bundle are stored in files, so they survive a killed process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import boto3

from pipelines.declarations.bundle import Bundle, BundledFile, DatasetVersion, Source
from pipelines.declarations.digests import digest_of_bytes, digest_of_file, digest_of_folder, digest_of_value
from pipelines.declarations.environment import EnvironmentDescriptor, ImageReferences, Images
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.github.git import Git
from pipelines.promotion.admission import Admitted, admit
from pipelines.promotion.attempt import Attribution
from pipelines.promotion.deploy import ReleaseDeployment
from pipelines.promotion.facts import Facts
from pipelines.promotion.facts.gather import ReleaseChange
from pipelines.promotion.images import pin_images
from pipelines.promotion.replicate import replicate
from pipelines.promotion.traffic_lease import TrafficHold
from pipelines.registry import bundles, evidence
from pipelines.registry.bundle_quarantine import quarantined
from pipelines.registry.ledger import Entry, Event, Ledger, verify_chain
from pipelines.serving.request_counts import RequestCount, key_of
from pipelines.serving.request_metrics import RequestMetrics
from pipelines.targets import Finding, Preview, Target
from tests.clones import commit_all, git, make_repository
from tests.http_responder import http_server
from tests.pipelines.promotion.direct_pods import open_direct_pods
from tests.pipelines.serving.bundles import linear_bundle
from tests.sample_project import ROOT
from tests.signing_environments import example_build

MODEL = "diabetes-progression"
DATASET = "diabetes-patients"
ACCEPTED = json.loads((ROOT / "tests" / "refused" / "accepted.json").read_text())
EVALUATION = ACCEPTED["evaluation"]
SERVING = "sha256:" + "5e" * 32
"""The serving image that staging runs."""

RELEASE = f"models/{MODEL}/releases/staging.yaml"


def write_release(project: Project, bundle: str, replaces: str | None = None) -> Path:
    """Write the release of the sample model in staging, and return the file."""
    path = project.root / RELEASE
    path.write_text(render_release(Release(model=MODEL, environment="staging", bundle=bundle, replaces=replaces)))
    return path


def accepted(_project: Any, _repository: Any, _descriptors: Any, change: ReleaseChange) -> Facts:
    """Stand-in for `gather`: return facts that every gate accepts."""
    release = change.release
    about = {"release": release.model_dump(mode="json"), "changed_files": list(change.files), "live": release.replaces}
    return Facts.model_validate_json(json.dumps(ACCEPTED | about))


@dataclass
class World:
    """The project and its environments.

    Attributes:
        project: the clone.
        dev: the environment that trains.
        staging: the environment that promotes from dev.
        state: folder with the applied and the live bundle of staging.
        url: URL of staging's endpoint.
        start: the first commit.
        said: progress messages.
        registered: seed → digest of the bundles registered in dev.
        brought: bundles replicated to staging.
        aborted: bundles whose trial was aborted.
        hold: the lease of the model's traffic.
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
    aborted: list[str] = field(default_factory=list)
    hold: TrafficHold = field(default_factory=lambda: HeldWithoutCluster("models", "traffic", "us"))

    @property
    def root(self) -> Path:
        return self.project.root

    @property
    def repository(self) -> Git:
        return Git(self.root)

    @property
    def descriptors(self) -> dict[str, EnvironmentDescriptor]:
        return {"dev": self.dev, "staging": self.staging}

    def attribution(self, **changes: Any) -> Attribution:
        values: dict[str, Any] = {"commit": self.repository.head(), "actor": "ann", "run": "run-1"}
        return Attribution(**values | changes)

    def register(self, seed: int, *, commit: str | None = None, golden: float | None = None, **changes: Any) -> str:
        """Register a signed bundle in dev, as the training job does, and return its digest.

        Args:
            seed: each seed gives a different bundle.
            commit: the commit it was built from; HEAD by default.
            golden: a wrong golden prediction; the right one by default.
            changes: fields of the manifest.
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
        """Replicate a bundle to staging."""
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
        """Record in dev's ledger that a bundle was verified."""
        ledger = Ledger(self.dev, MODEL)
        head = ledger.head()
        before = head.event.live if head else None
        event = Event.of(
            attempt=f"dev/{digest}", action="promotion", result="verified", before=before, to=digest, live=digest
        )
        when = at or datetime.now(UTC) - timedelta(minutes=5)
        ledger.append(lambda _: event.model_copy(update={"at": when}))

    def log_requests(self, digest: str, count: int = 25, *, errors: int = 0) -> None:
        """Write a count of requests to dev's inference log, with the current time."""
        now = int(datetime.now(UTC).timestamp() * 1000)
        key = key_of(RequestCount(now, now, count, errors, digest), MODEL, f"pod-{digest[-8:]}", 1)
        boto3.client("s3").put_object(Bucket=self.dev.logs_bucket, Key=key, Body=b"{}")

    def ready(self, seed: int, **changes: Any) -> str:
        """Register a bundle that every gate accepts for staging; return its digest."""
        digest = self.register(seed, **changes)
        self.verify_in_dev(digest)
        self.log_requests(digest)
        return digest

    def release(self, digest: str | None, replaces: str | None, environment: str = "staging") -> ReleaseChange:
        """Commit a release file to main."""
        git(self.root, "fetch", "--quiet", "origin")
        git(self.root, "checkout", "--quiet", "--detach", "origin/main")
        wanted = Release(model=MODEL, environment=environment, bundle=digest, replaces=replaces)
        path = self.project.release_file(MODEL, environment)
        path.write_text(render_release(wanted))
        commit_all(self.root, f"Release {MODEL} to {environment}")
        return ReleaseChange(wanted, (path.relative_to(self.root).as_posix(),))

    # --- the environment ---

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

    @contextmanager
    def cluster(
        self, follow: Callable[[str], object] | None = None, move: Callable[[str, str], object] | None = None
    ) -> Iterator[None]:
        """Replace rollouts and traffic shifts by those of this world.

        Args:
            follow: replaces `self.follow`; called with the model.
            move: replaces `self.move`; called with the model and the bundle.
        """

        def move_traffic(_: EnvironmentDescriptor, model: str, digest: str, **_options: object) -> float:
            if digest != self.live() or digest != self.applied():
                (move or self.move)(model, digest)
            return 0.0

        def follow_rollout(_target: Target, _environment: str, model: str, _bundle: str, *_: object) -> None:
            (follow or self.follow)(model)

        def abort_rollout(_namespace: str, _model: str, bundle: str) -> bool:
            self.aborted.append(bundle)
            return True

        def served_bundle(_namespace: str, _model: str) -> str | None:
            return self.applied()

        @contextmanager
        def hold_traffic(*_: object) -> Iterator[TrafficHold]:
            yield self.hold

        with (
            mock.patch("pipelines.promotion.deploy.follow_rollout", follow_rollout),
            mock.patch("pipelines.promotion.deploy.move_traffic", move_traffic),
            mock.patch("pipelines.promotion.deploy.wait_until_served"),
            mock.patch("pipelines.promotion.rollback.move_traffic", move_traffic),
            mock.patch("pipelines.promotion.rollback.abort_rollout", abort_rollout),
            mock.patch("pipelines.promotion.rollback.check_rights"),
            mock.patch("pipelines.promotion.rollback.hold_traffic", hold_traffic),
            mock.patch("pipelines.promotion.deploy.hold_traffic", hold_traffic),
            mock.patch("pipelines.promotion.rollback_plan.served_bundle", served_bundle),
            mock.patch("pipelines.promotion.verify.open_pods", open_direct_pods),
            mock.patch("pipelines.promotion.verify.is_ready_pod", return_value=True),
            mock.patch("pipelines.promotion.verify.await_load_balancer"),
            mock.patch("pipelines.promotion.verify.PATIENCE_SECONDS", 0.0),
        ):
            yield

    @contextmanager
    def origin_down(self) -> Iterator[None]:
        """Let the origin be a server that does not answer; no one waits for it."""
        url = git(self.root, "remote", "get-url", "origin")
        git(self.root, "remote", "set-url", "origin", "http://127.0.0.1:9/acme/mlops.git")
        try:
            with mock.patch("pipelines.github.outages.OUTAGE_SECONDS", 0.0):
                yield
        finally:
            git(self.root, "remote", "set-url", "origin", url)

    def admit(self, change: ReleaseChange, *, attribution: Attribution | None = None, **options: Any) -> Admitted:
        """Judge a release to staging."""
        say, descriptors = options.get("say", self.said.append), options.get("descriptors", self.descriptors)
        return admit(self.project, self.repository, descriptors, change, attribution or self.attribution(), say)

    def take_live(
        self,
        admitted: Admitted,
        *,
        apply: Callable[[], object] | None = None,
        follow: Callable[[str], object] | None = None,
        take_back: Callable[[str, str], object] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Entry:
        """Take an admitted release live in staging; the steps can be replaced."""
        target = WorldTarget(self, apply or self.apply)
        with self.cluster(follow, take_back):
            say = say or self.said.append
            deployment = ReleaseDeployment(target, "staging", self.descriptors, say, {MODEL: self.hold})
            return deployment.take_live(admitted)

    # --- results ---

    def records(self, environment: str = "staging") -> list[Entry]:
        """Return the verified ledger, oldest entry first."""
        descriptor = self.descriptors[environment]
        ledger = Ledger(descriptor, MODEL)
        return verify_chain((ledger.stored(n).content for n in range(1, ledger.newest() + 1)), descriptor, MODEL)

    def story(self) -> list[tuple[str, str, str, str | None]]:
        """Return action, result, target and live bundle of every entry of staging."""
        return [(e.event.action, e.event.result, e.event.to, e.event.live) for e in self.records()]

    def end_state(self) -> dict[str, Any]:
        """Return the state that must not depend on interruptions."""
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
        """Go back to the first commit, with no release live. Bundles stay in dev, and in staging if asked."""
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
        self.aborted.clear()
        self.hold.lost_to = ""


class HeldWithoutCluster(TrafficHold):
    """A lease that is lost when a test says so."""

    def confirm(self) -> None:
        self.check()

    def __reduce__(self) -> tuple[Any, ...]:
        return HeldWithoutCluster, (self.namespace, self.name, self.identity, self.lost_to)


class WorldTarget(Target):
    """Target whose environments are those of a world.

    Args:
        world: the world with the environments.
        apply: replaces `pulumi up`.
    """

    name = "world"

    def __init__(self, world: World, apply: Callable[[], object]) -> None:
        super().__init__(world.project)
        self._world = world
        self._apply = apply

    def connect(self) -> None:
        pass

    def apply(self, operation: str, environment: str, *, foundation_only: bool = False) -> None:
        assert (operation, environment, foundation_only) == ("up", "staging", False)
        self._apply()

    def preview(self, environment: str) -> Preview:
        return Preview("", {"same": 1})

    def outputs(self, environment: str) -> dict[str, Any]:
        return {"descriptor": self._world.descriptors[environment].model_dump(mode="json")}

    def descriptor(self, environment: str) -> EnvironmentDescriptor:
        return self._world.descriptors[environment]

    def descriptors(self) -> dict[str, EnvironmentDescriptor]:
        return self._world.descriptors

    def reach_cluster(self, environment: str) -> None:
        pass

    def drift(self, environment: str) -> list[str]:
        return []

    def unlock(self, environment: str, log: Callable[[str], None], *, force: bool) -> None:
        pass

    def findings(self) -> list[Finding]:
        return []


def empty(bucket: str, prefix: str = "") -> None:
    """Delete all objects with a prefix."""
    s3 = boto3.client("s3")
    keys = [{"Key": entry["Key"]} for entry in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())]
    if keys:
        s3.delete_objects(Bucket=bucket, Delete={"Objects": keys})


class LiveEndpoint:
    """Answers as pods of the live bundle would; reads each bundle from dev's registry once."""

    def __init__(self, state: Path, registry: EnvironmentDescriptor) -> None:
        self.state = state
        self.registry = registry
        self._models: dict[str, Any] = {}
        self._metrics = RequestMetrics(MODEL, "")

    def answer(self, _method: str, path: str, body: bytes) -> tuple[int, bytes]:
        from pipelines.serving.predictor import Predictor
        from pipelines.serving.request_error import RequestError

        live = (self.state / "live").read_text() if (self.state / "live").is_file() else ""
        if not live:
            return 503, b"{}"
        if live not in self._models:
            fetched = bundles.fetch(self.registry, MODEL, live)
            self._models[live] = Predictor(fetched.manifest, fetched.files)
        model = self._models[live]
        if path == "/metrics":
            return 200, self._metrics.exposition()[1]
        if not path.endswith("/infer"):
            return 200, json.dumps(model.metadata()).encode()
        try:
            self._metrics.answered(200, 0.001)
            return 200, model.answer(body, b"id").body
        except RequestError as refusal:
            return refusal.status, json.dumps({"error": refusal.message}).encode()


@contextmanager
def running_world(folder: Path, dev: EnvironmentDescriptor, staging: EnvironmentDescriptor) -> Iterator[World]:
    """Set up the project in a folder and serve its endpoint."""
    state = folder / "state"
    state.mkdir(parents=True)
    with http_server(LiveEndpoint(state, dev).answer) as url:
        project = make_repository(folder / "git")
        pin_images(project, "staging", Images(serving=SERVING))
        commit_all(project.root, "Pin the serving image")
        images = ImageReferences(serving=f"{staging.repositories.serving}@{SERVING}")
        staging = staging.model_copy(update={"endpoints": {MODEL: url}, "images": images})
        yield World(project, dev, staging, state, url, git(project.root, "rev-parse", "HEAD"))
