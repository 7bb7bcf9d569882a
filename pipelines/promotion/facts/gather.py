"""Gather the facts of a promotion. Read-only. A fact that cannot be read is unknown, never assumed good."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipelines.declarations.bundle import MANIFEST, Bundle, RequestSchema
from pipelines.declarations.contract import Contract
from pipelines.declarations.digests import digest_of_bytes, digest_of_value
from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentDescriptor, FreezeWindow
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.model import Model
from pipelines.declarations.project import Project
from pipelines.declarations.release import Release
from pipelines.github.git import MAIN, Git
from pipelines.promotion.facts.served import count_requests
from pipelines.promotion.facts.types import (
    Facts,
    FileContent,
    Origin,
    Policy,
    Predecessor,
    SignedStatement,
    TrialResult,
)
from pipelines.promotion.release_changes import read_release_changes
from pipelines.promotion.select import pinned_images
from pipelines.promotion.trial import try_bundle
from pipelines.registry import bundles, evidence, signing, store
from pipelines.registry.bundle_quarantine import quarantined_anywhere
from pipelines.registry.ledger import Entry, Ledger

NEW_ENVIRONMENT = "docs/platform-engineer.md#another-environment"

T = TypeVar("T")
D = TypeVar("D", Evaluation, RequestSchema)


@dataclass(frozen=True)
class ReleaseChange:
    """A change that proposes a release.

    Attributes:
        release: the release file after the change.
        files: every file that it changes.
    """

    release: Release
    files: tuple[str, ...]


def read_changes(git: Git, base: str, head: str) -> list[ReleaseChange]:
    """Return the releases of bundles that a change proposes, in the order of their paths.

    Args:
        git: the clone.
        base: the commit or branch to merge into.
        head: the newest commit of the change.

    Raises:
        MlopsError: a release file is invalid.
    """
    files = git.changed_files(base, head)
    changed = read_release_changes(git, base, head)
    return [ReleaseChange(one.after, files) for one in changed if one.kind == "release" and one.after is not None]


def gather(
    project: Project,
    git: Git,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: ReleaseChange,
    *,
    now: datetime | None = None,
) -> Facts:
    """Gather the facts of a promotion.

    Args:
        project: the repository's declarations.
        git: the clone.
        descriptors: environment → descriptor, for the environments that are up.
        change: the proposed release.
        now: the time of judgement; the current time by default.

    Raises:
        MlopsError: the model or the environment does not exist, or the environment is not up.
    """
    return FactGatherer(project, git, descriptors, change).gather(now or datetime.now(UTC))


def _read_once(read: Callable[[FactGatherer], T]) -> Callable[[FactGatherer], T]:
    """Cache the result or error of a method that several facts depend on."""

    @wraps(read)
    def cached(self: FactGatherer) -> T:
        if read.__name__ not in self._results:
            try:
                self._results[read.__name__] = read(self)
            except MlopsError as error:
                self._results[read.__name__] = error
        result: Any = self._results[read.__name__]
        if isinstance(result, MlopsError):
            raise result
        return result  # type: ignore[no-any-return]

    return cached


class FactGatherer:
    """Reader of facts, one method per fact. A method raises MlopsError if its fact cannot be read.

    Args:
        project, git, descriptors, change: see `gather`.

    Raises:
        MlopsError: the model or the environment does not exist, or the environment is not up.
    """

    def __init__(
        self, project: Project, git: Git, descriptors: Mapping[str, EnvironmentDescriptor], change: ReleaseChange
    ) -> None:
        release = change.release
        project.model(release.model)
        self.project, self.git, self.descriptors, self.change = project, git, descriptors, change
        self.model, self.digest = release.model, release.bundle or ""
        self.promotes_from = project.stack(release.environment).config.environment.promotes_from
        self.trainer = project.environments[0]
        for name in (release.environment, self.promotes_from or release.environment):
            if name not in descriptors:
                raise MlopsError(
                    f"{name} is not up: expected an environment that runs, to release {self.model} there",
                    fix=f"bring {name} up first: {NEW_ENVIRONMENT}",
                )
        self.here = descriptors[release.environment]
        self.source = descriptors[self.promotes_from or release.environment]
        self._results: dict[str, object] = {}

    def gather(self, now: datetime) -> Facts:
        """Read every fact; record the reasons of those that cannot be read."""
        unknown: dict[str, str] = {}

        def read(method: Callable[[], T]) -> T | None:
            try:
                return method()
            except MlopsError as error:
                unknown[method.__name__] = error.what
                return None

        live = read(self.live)
        return Facts(
            now=now,
            release=self.change.release,
            changed_files=self.change.files,
            files=read(self.files) or (),
            signatures=read(self.signatures) or (),
            origin=read(self.origin),
            policy=read(self.policy),
            evaluation=read(self.evaluation),
            runtime=read(self.runtime),
            request_schema=read(self.request_schema),
            serving_image=read(self.serving_image),
            live=live,
            champion=read(self.champion) if live is not None else None,
            live_schema=read(self.live_schema) if live is not None else None,
            predecessor=read(self.predecessor) if self.promotes_from else None,
            promotes_from=self.promotes_from,
            freezes=read(self.freezes),
            quarantined=read(self.quarantined),
            contract_breaks=read(self.contract_breaks),
            unknown=unknown,
        )

    # --- the candidate ---

    @_read_once
    def _bundle(self) -> bundles.FetchedBundle:
        """Fetch the candidate; every file is re-hashed."""
        return bundles.fetch(self.source, self.model, self.digest)

    @_read_once
    def _verified(self) -> evidence.VerifiedBundle:
        """Verify the candidate's evidence."""
        return evidence.verify_bundle(self.source, self.model, self.digest, [])

    @_read_once
    def _commit_on_main(self) -> str | None:
        return next((commit for commit in self._verified().commits if self.git.is_on_main(commit)), None)

    def files(self) -> tuple[FileContent, ...]:
        """Return the expected and the actual digest of every file; empty if the bundle does not exist."""
        try:
            fetched = self._bundle()
        except MlopsError:
            # Look at each file, to name the wrong one.
            return read_files(self.source, self.model, self.digest)
        digests = {MANIFEST: fetched.digest, **{name: file.sha256 for name, file in fetched.manifest.files.items()}}
        return tuple(FileContent(name=name, expected=found, found=found) for name, found in sorted(digests.items()))

    def signatures(self) -> tuple[SignedStatement, ...]:
        """Return the signatures of the statements about the bundle; missing statements are left out."""
        return read_signatures(self.source, self.model, self.digest, self.trainer)

    def origin(self) -> Origin:
        """Return builder and source of the bundle, and the digest of the source on main."""
        verified, commit = self._verified(), self._commit_on_main()
        committed = None
        if commit is not None:
            committed = self.git.digest_of_folder(commit, f"models/{self.model}", without=("releases",))
        return Origin(
            builder=verified.provenance.run.builder.id,
            expected_builder=evidence.builder_of(self.trainer, verified.manifest),
            commits=verified.commits,
            commit_on_main=commit,
            source=verified.manifest.source.model,
            committed_source=committed,
        )

    def policy(self) -> Policy:
        """Return the gates in the commit that the bundle was built from."""
        verified = self._verified()
        commit = self._commit_on_main() or verified.commits[0]
        path = f"models/{self.model}/model.yaml"
        gates = parse(self.git.read_file(commit, path), Model, Path(path)).gates
        digest = digest_of_value(gates.model_dump(mode="json"))
        return Policy(gates=gates, digest=digest, evaluated=verified.evaluated.gates)

    def evaluation(self) -> Evaluation:
        """Return the candidate's evaluation."""
        return _parse_file(self._bundle(), "evaluation.json", Evaluation)

    def request_schema(self) -> RequestSchema:
        """Return the candidate's request schema."""
        return _parse_file(self._bundle(), "schema.json", RequestSchema)

    def runtime(self) -> TrialResult:
        """Load the candidate and time it, but only with verified evidence and unchanged files."""
        manifest = self._verified().manifest
        return try_bundle(self.project, manifest, self._bundle().files)

    # --- the live bundle ---

    @_read_once
    def live(self) -> str | None:
        """Return the live bundle."""
        head = Ledger(self.here, self.model).head()
        return head.event.live if head is not None else None

    @_read_once
    def _live_bundle(self) -> bundles.FetchedBundle | None:
        live = self.live()
        if live is None:
            return None
        return bundles.fetch(self.here, self.model, live, ("evaluation.json", "schema.json"))

    def champion(self) -> Evaluation | None:
        """Return the live bundle's evaluation."""
        fetched = self._live_bundle()
        return _parse_file(fetched, "evaluation.json", Evaluation) if fetched is not None else None

    def live_schema(self) -> RequestSchema | None:
        """Return the live bundle's request schema."""
        fetched = self._live_bundle()
        return _parse_file(fetched, "schema.json", RequestSchema) if fetched is not None else None

    def contract_breaks(self) -> tuple[str, ...]:
        """Return the breaking changes from the live bundle's data contract that the candidate's does not announce."""
        from pipelines.data.schema_compatibility import unannounced_changes

        candidate, live = self._verified(), self._live_bundle()
        if live is None or live.manifest.contract == candidate.manifest.contract:
            return ()
        current = evidence.verify_bundle(self.here, live.manifest.model, live.digest, [])
        model = self.project.model(self.model)
        before, after = find_contract(self.git, current), find_contract(self.git, candidate)
        changes = unannounced_changes(before, after, {*model.features, model.target})
        return tuple(str(change) for change in changes)

    # --- the environments ---

    def predecessor(self) -> Predecessor:
        """Return the candidate's record in the previous environment."""
        return read_predecessor(self.source, self.model, self.digest)

    def serving_image(self) -> str | None:
        """Return the serving image that the environment pins in the change, or in main by now.

        Gates that are asked again see the commit of the first time, which may lack a pin that was merged since.
        """
        name = self.change.release.environment
        pinned = self.project.stack(name).config.environment.images.serving
        file = self.project.stack_file(name).name
        return pinned or pinned_images(self.git, self.git.resolve(MAIN), file).serving

    def freezes(self) -> tuple[FreezeWindow, ...]:
        """Return the freeze windows of the environment."""
        return self.project.stack(self.change.release.environment).config.environment.freezes

    def quarantined(self) -> dict[str, str]:
        """Return the bundles of the model that are quarantined in any environment, with reasons."""
        return quarantined_anywhere(self.descriptors, self.model)


def read_files(descriptor: EnvironmentDescriptor, model: str, digest: str) -> tuple[FileContent, ...]:
    """Return the expected and the actual digest of every file of a bundle; empty if it does not exist.

    Raises:
        MlopsError: the registry cannot be read, or the manifest is invalid.
    """
    bucket, prefix = descriptor.registry_bucket, bundles.prefix_of(model, digest)
    held: dict[str, str] = {}
    manifest = None
    for key in store.sizes(bucket, prefix, limit=100):
        content = store.get(bucket, key, limit=bundles.LARGEST_FILE).content
        held[key.removeprefix(prefix)] = digest_of_bytes(content)
        if key == prefix + MANIFEST:
            manifest = content
    if manifest is None:
        return ()
    stated = {MANIFEST: digest}
    if held[MANIFEST] == digest:
        files = parse(manifest, Bundle, Path(MANIFEST)).files
        stated |= {name: file.sha256 for name, file in files.items()}
    else:  # a changed manifest is not trusted: only the manifest itself is reported
        stated |= {name: found for name, found in held.items() if name != MANIFEST}
    names = sorted({*stated, *held})
    return tuple(FileContent(name=name, expected=stated.get(name), found=held.get(name)) for name in names)


def read_signatures(
    descriptor: EnvironmentDescriptor, model: str, digest: str, trainer: str
) -> tuple[SignedStatement, ...]:
    """Return the signatures of the statements about a bundle; missing statements are left out.

    Args:
        descriptor: the environment whose registry has the bundle.
        model: the model.
        digest: the bundle.
        trainer: the environment that must have signed.

    Raises:
        MlopsError: the registry cannot be read.
    """
    try:
        names = evidence.names_of_statements(descriptor, model, digest)
    except evidence.UnsignedBundleError:
        names = [f"{kind}{evidence.SUFFIX}" for kind in ("provenance", "evaluation")]
    with ThreadPoolExecutor(evidence.READ_AT_ONCE) as pool:
        found = pool.map(lambda name: _read_signature(descriptor, model, digest, name, trainer), names)
        return tuple(statement for statement in found if statement is not None)


def _read_signature(
    descriptor: EnvironmentDescriptor, model: str, digest: str, name: str, trainer: str
) -> SignedStatement | None:
    """Return the signature of one statement; None if the statement does not exist."""
    kind: Literal["provenance", "evaluation"] = "evaluation" if name.startswith("evaluation") else "provenance"
    try:
        statement: tuple[object, str] | None = (
            evidence.read_statement(descriptor, model, digest, name, evidence.Evaluated)
            if kind == "evaluation"
            else evidence.read_statement(descriptor, model, digest, name, evidence.Provenance)
        )
    except signing.BadSignatureError as error:
        return SignedStatement(kind=kind, expected=trainer, signer=None, problem=error.what)
    return SignedStatement(kind=kind, expected=trainer, signer=statement[1]) if statement is not None else None


def read_predecessor(descriptor: EnvironmentDescriptor, model: str, digest: str) -> Predecessor:
    """Return a bundle's record in an environment.

    Raises:
        MlopsError: the ledger or the inference log cannot be read.
    """
    entries = list(_back_to(descriptor, model, digest))
    entry = entries[-1] if entries else None
    if entry is None or not _verifies(entry, digest):
        return Predecessor(environment=descriptor.name, verified_at=None, live=False, requests=0, errors=0)
    served = count_requests(descriptor, model, digest, entry.at)
    return Predecessor(
        environment=descriptor.name,
        verified_at=entry.at,
        live=entries[0].event.live == digest,
        requests=served.requests,
        errors=served.errors,
    )


def _back_to(descriptor: EnvironmentDescriptor, model: str, digest: str) -> Iterator[Entry]:
    """Yield ledger entries from the newest back to the last verification of a bundle, or to the first entry."""
    for entry in Ledger(descriptor, model).back():
        yield entry
        if _verifies(entry, digest):
            return


def _verifies(entry: Entry, digest: str) -> bool:
    return entry.event.result == "verified" and entry.event.to == digest


def find_contract(git: Git, verified: evidence.VerifiedBundle) -> Contract:
    """Return the data contract of a bundle, from one of the commits it was built from.

    Raises:
        MlopsError: no commit has it, or it is invalid.
    """
    manifest = verified.manifest
    path = f"data-contracts/{manifest.dataset.dataset}.odcs.yaml"
    for commit in verified.commits:
        try:
            content = git.read_file(commit, path)
        except MlopsError:
            continue  # a deleted branch; the bundle may also have been built from main
        if digest_of_bytes(content) == manifest.contract:
            return parse(content, Contract, Path(path))
    raise MlopsError(f"no known commit that {manifest.digest} was built from has its contract")


def _parse_file(fetched: bundles.FetchedBundle, name: str, kind: type[D]) -> D:
    if name not in fetched.files:
        raise MlopsError(f"the bundle has no {name}")
    return parse(fetched.files[name], kind, Path(name))
