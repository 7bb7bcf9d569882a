"""Gather the facts of a promotion. Reads much, changes nothing, and lets no failure pass for a good fact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from pipelines.declarations.bundle import MANIFEST, Bundle, RequestSchema
from pipelines.declarations.contract import Contract
from pipelines.declarations.digests import digest_of_bytes, digest_of_value
from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.evaluation import Evaluation
from pipelines.declarations.model import Model
from pipelines.declarations.project import Project
from pipelines.declarations.release import Release
from pipelines.github.repository import Repository
from pipelines.promotion.facts import (
    Facts,
    FileContent,
    Origin,
    Policy,
    Predecessor,
    Runtime,
    SignedStatement,
)
from pipelines.promotion.plan import RELEASE_FILE
from pipelines.promotion.served import count_requests
from pipelines.promotion.trial import try_bundle
from pipelines.registry import bundles, evidence, signing, store
from pipelines.registry.ledger import Entry, Ledger
from pipelines.registry.quarantine import quarantined

T = TypeVar("T")
D = TypeVar("D", Evaluation, RequestSchema)


@dataclass(frozen=True)
class Change:
    """A change that proposes a release.

    Attributes:
        release: as the change leaves the file.
        files: every file that it changes.
    """

    release: Release
    files: tuple[str, ...]


def proposed(repository: Repository, base: str, head: str) -> list[Change]:
    """The releases that a change proposes, in the order of their paths.

    Args:
        repository: git.
        base: the commit or branch it would be merged into.
        head: the commit it leads to.

    Raises:
        MlopsError: a release file is wrong.
    """
    files = repository.changed_files(base, head)
    changes = []
    for name in files:
        if RELEASE_FILE.match(name):
            content = repository.file_at(repository.commit(head), name)
            changes.append(Change(parse(content, Release, Path(name)), files))
    return changes


@dataclass
class _Gatherer:
    """Collects facts, and why others could not be had."""

    unknown: dict[str, str] = field(default_factory=dict)

    def try_to(self, name: str, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except MlopsError as error:
            self.unknown[name] = error.what
            return None


def gather(
    project: Project,
    repository: Repository,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: Change,
    *,
    now: datetime | None = None,
) -> Facts:
    """Everything that is known of a promotion.

    Args:
        project: the repository's declarations.
        repository: git.
        descriptors: of the environments that are up.
        change: what is proposed.
        now: the time of judgement.

    Raises:
        MlopsError: there is no such model or environment, or the environment is not up.
    """
    release = change.release
    model, environment, digest = release.model, release.environment, release.bundle or ""
    project.model(model)
    before = project.stack(environment).config.environment.promotes_from
    first = project.environments[0]
    for name in (environment, before or environment):
        if name not in descriptors:
            raise MlopsError(f"{name} is not up", fix=f"mlops up --env {name}")
    here, source = descriptors[environment], descriptors[before or environment]
    get = _Gatherer()

    fetched = get.try_to("bundle", lambda: bundles.fetch(source, model, digest))
    why = get.unknown.pop("bundle", "")
    # What was fetched was re-hashed; what was not is looked at file by file, to say which one is wrong.
    files = files_of(fetched) if fetched else get.try_to("files", lambda: read_files(source, model, digest)) or ()

    def of_bundle(name: str, call: Callable[[Mapping[str, bytes]], T]) -> T | None:
        if fetched is None:
            get.unknown[name] = why
            return None
        return get.try_to(name, lambda: call(fetched.files))

    vouched = get.try_to("evidence", lambda: evidence.verify_bundle(source, model, digest, []))
    why_not = get.unknown.pop("evidence", "")

    def of_evidence(name: str, call: Callable[[evidence.VerifiedBundle], T]) -> T | None:
        if vouched is None:
            get.unknown[name] = why_not
            return None
        return get.try_to(name, lambda: call(vouched))

    signatures = get.try_to("signatures", lambda: read_signatures(source, model, digest, first)) or ()
    origin = of_evidence("origin", lambda v: read_origin(repository, v, first))
    policy = of_evidence("policy", lambda v: read_policy(repository, v))
    evaluation = of_bundle("evaluation", lambda f: _read(f, "evaluation.json", Evaluation))
    schema = of_bundle("request_schema", lambda f: _read(f, "schema.json", RequestSchema))
    # A bundle that nobody whom we trust vouches for, or that is not what it says, is not loaded.
    runtime: Runtime | None = of_evidence(
        "runtime", lambda v: of_bundle("runtime", lambda files: try_bundle(project, v.manifest, files))
    )

    head = get.try_to("live", lambda: (Ledger(here, model).head(),))
    live = head[0].event.live if head and head[0] else None
    parts = ("evaluation.json", "schema.json")
    current = get.try_to("current", lambda: bundles.fetch(here, model, live, parts)) if live is not None else None
    why_not_current = get.unknown.pop("current", "")

    def of_current(name: str, file: str, kind: type[D]) -> D | None:
        if current is None:
            get.unknown |= {name: why_not_current} if live is not None else {}
            return None
        return get.try_to(name, lambda: _read(current.files, file, kind))

    champion = of_current("champion", "evaluation.json", Evaluation)
    live_schema = of_current("live_schema", "schema.json", RequestSchema)
    why_no_contracts = why_not or get.unknown.get("live", "") or why_not_current

    return Facts(
        now=now or datetime.now(UTC),
        release=release,
        changed_files=change.files,
        files=files,
        signatures=signatures,
        origin=origin,
        policy=policy,
        evaluation=evaluation,
        runtime=runtime,
        request_schema=schema,
        champion=champion,
        live=live,
        live_schema=live_schema,
        predecessor=get.try_to("predecessor", lambda: read_predecessor(source, model, digest)) if before else None,
        promotes_from=before,
        freezes=get.try_to("freezes", lambda: project.stack(environment).config.environment.freezes),
        quarantined=get.try_to("quarantined", lambda: read_quarantines(descriptors, model)),
        contract_breaks=get.try_to(
            "contract_breaks",
            lambda: read_contract_breaks(repository, here, vouched, current, why_no_contracts),
        ),
        unknown=get.unknown,
    )


def files_of(fetched: bundles.FetchedBundle) -> tuple[FileContent, ...]:
    """Every file of a bundle that was fetched whole, and so is what its manifest states."""
    stated = {MANIFEST: fetched.digest, **{name: file.sha256 for name, file in fetched.manifest.files.items()}}
    return tuple(FileContent(name=name, expected=found, found=found) for name, found in sorted(stated.items()))


def read_files(descriptor: EnvironmentDescriptor, model: str, digest: str) -> tuple[FileContent, ...]:
    """What the manifest says of each file, and what the registry holds; empty when there is no such bundle.

    Raises:
        MlopsError: the registry cannot be read, or holds something that is no bundle.
    """
    bucket, prefix = descriptor.registry_bucket, bundles.prefix_of(model, digest)
    present = store.sizes(bucket, prefix, limit=100)
    held: dict[str, str] = {}
    manifest = None
    for key in present:
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
    else:
        stated |= {name: found for name, found in held.items() if name != MANIFEST}
    names = sorted({*stated, *held})
    return tuple(FileContent(name=name, expected=stated.get(name), found=held.get(name)) for name in names)


def read_signatures(
    descriptor: EnvironmentDescriptor, model: str, digest: str, trainer: str
) -> tuple[SignedStatement, ...]:
    """Who signed the statements about a bundle; those that are missing are left out.

    Raises:
        MlopsError: the registry cannot be read.
    """
    try:
        names = evidence.names_of_statements(descriptor, model, digest)
    except evidence.UnsignedBundleError:
        names = [f"{kind}{evidence.SUFFIX}" for kind in ("provenance", "evaluation")]
    found = []
    for name in names:
        called: Literal["provenance", "evaluation"] = "evaluation" if name.startswith("evaluation") else "provenance"
        try:
            statement: tuple[object, str] | None = (
                evidence.read_statement(descriptor, model, digest, name, evidence.Evaluated)
                if called == "evaluation"
                else evidence.read_statement(descriptor, model, digest, name, evidence.Provenance)
            )
        except signing.BadSignatureError as error:
            found.append(SignedStatement(kind=called, expected=trainer, signer=None, problem=error.what))
            continue
        if statement is not None:
            found.append(SignedStatement(kind=called, expected=trainer, signer=statement[1]))
    return tuple(found)


def read_origin(repository: Repository, verified: evidence.VerifiedBundle, trainer: str) -> Origin:
    """Where the provenance says that the bundle comes from, and what git says of that.

    Raises:
        MlopsError: git cannot tell.
    """
    manifest, commit, committed = verified.manifest, _on_main(repository, verified), None
    if commit is not None:
        committed = repository.digest_of_folder_at(commit, f"models/{manifest.model}", without=("releases",))
    return Origin(
        builder=verified.provenance.run.builder.id,
        expected_builder=evidence.builder_of(trainer, manifest),
        commits=verified.commits,
        commit_on_main=commit,
        source=manifest.source.model,
        committed_source=committed,
    )


def read_policy(repository: Repository, verified: evidence.VerifiedBundle) -> Policy:
    """The gates as they were committed before the evaluation.

    Raises:
        MlopsError: the commit is not known here, or its `model.yaml` is wrong.
    """
    commit = _on_main(repository, verified) or verified.commits[0]
    path = f"models/{verified.manifest.model}/model.yaml"
    gates = parse(repository.file_at(commit, path), Model, Path(path)).gates
    return Policy(
        gates=gates, digest=digest_of_value(gates.model_dump(mode="json")), evaluated=verified.evaluated.gates
    )


def _on_main(repository: Repository, verified: evidence.VerifiedBundle) -> str | None:
    return next((commit for commit in verified.commits if repository.is_on_main(commit)), None)


def _read(files: Mapping[str, bytes], name: str, kind: type[D]) -> D:
    if name not in files:
        raise MlopsError(f"the bundle holds no {name}")
    return parse(files[name], kind, Path(name))


def read_predecessor(descriptor: EnvironmentDescriptor, model: str, digest: str) -> Predecessor:
    """How a bundle did in an environment.

    Raises:
        MlopsError: its ledger or its logs cannot be read.
    """
    entries = list(_back_to(descriptor, model, digest))
    entry = entries[-1] if entries else None
    if entry is None or not _is_of(entry, digest):
        return Predecessor(environment=descriptor.name, verified_at=None, live=False, requests=0, errors=0)
    served = count_requests(descriptor, model, digest, entry.event.at)
    return Predecessor(
        environment=descriptor.name,
        verified_at=entry.event.at,
        live=entries[0].event.live == digest,
        requests=served.requests,
        errors=served.errors,
    )


def _back_to(descriptor: EnvironmentDescriptor, model: str, digest: str) -> Iterator[Entry]:
    """The records from the newest back to the one that proves a bundle to have served, or else to the first."""
    for entry in Ledger(descriptor, model).back():
        yield entry
        if _is_of(entry, digest):
            return


def _is_of(entry: Entry, digest: str) -> bool:
    return entry.event.result == "verified" and entry.event.to == digest


def read_quarantines(descriptors: Mapping[str, EnvironmentDescriptor], model: str) -> dict[str, str]:
    """The bundles of a model that were found bad in any environment."""
    found: dict[str, str] = {}
    for name, descriptor in descriptors.items():
        found |= {digest: f"{why} (in {name})" for digest, why in quarantined(descriptor, model).items()}
    return found


def read_contract_breaks(
    repository: Repository,
    here: EnvironmentDescriptor,
    candidate: evidence.VerifiedBundle | None,
    current: bundles.FetchedBundle | None,
    why_unknown: str = "",
) -> tuple[str, ...]:
    """What the candidate's contract takes from those who rely on the live bundle's.

    Args:
        repository: git.
        here: the environment that the bundle is to run in.
        candidate: it; None when it cannot be trusted.
        current: the bundle that runs there now; None when none does, or when that is not known.
        why_unknown: why one of the two is not known; empty when both are.

    Raises:
        MlopsError: a bundle or one of the contracts cannot be read, or one of the two is not known.
    """
    from pipelines.data.compatibility import breaking_changes

    if candidate is None or why_unknown:
        raise MlopsError(why_unknown or "the bundle cannot be read")
    if current is None or current.manifest.contract == candidate.manifest.contract:
        return ()
    relied_on = evidence.verify_bundle(here, current.manifest.model, current.digest, [])
    old, new = _contract(repository, relied_on), _contract(repository, candidate)
    return tuple(str(change) for change in breaking_changes(old, new))


def _contract(repository: Repository, verified: evidence.VerifiedBundle) -> Contract:
    """The contract that a bundle was made under, from one of the commits it was made from."""
    manifest = verified.manifest
    path = f"data-contracts/{manifest.dataset.dataset}.odcs.yaml"
    for commit in verified.commits:
        try:
            content = repository.file_at(commit, path)
        except MlopsError:
            continue  # a branch that is gone by now; the same bundle may have been made from main as well
        if digest_of_bytes(content) == manifest.contract:
            return parse(content, Contract, Path(path))
    raise MlopsError(f"no commit known here that {manifest.digest} was made from holds its contract")
