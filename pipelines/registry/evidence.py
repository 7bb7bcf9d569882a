"""Signed evidence about a bundle: its provenance and its evaluation.

Statements hold digests instead of documents, because KMS signs at most 4,096 bytes. Provenance follows SLSA provenance
v1, https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, StringConstraints, ValidationError

from pipelines.declarations.bundle import Bundle, DatasetVersion
from pipelines.declarations.digests import Digest, digest_of_bytes
from pipelines.declarations.documents import Declaration, first_problem
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import Instant, Name, RunId, checked_name
from pipelines.registry import bundles, signing, store

PROVENANCE = "https://slsa.dev/provenance/v1"
EVALUATION = "urn:mlops:evaluation:v1"
SUFFIX = ".dsse.json"

FIRST, EVALUATED = f"provenance{SUFFIX}", f"evaluation{SUFFIX}"
"""Names of the statements that every bundle has."""

READ_AT_ONCE = 8
"""Number of statements that are read in parallel."""

_LATER = re.compile(rf"provenance-[0-9a-f]{{12}}{re.escape(SUFFIX)}")
"""Names of the provenances of later runs: each commit that produces the bundle again adds one, without a limit."""


class UnsignedBundleError(MlopsError):
    """The bundle lacks evidence."""


@dataclass(frozen=True)
class Build:
    """Training run that made a bundle: the facts that differ between runs with the same result.

    Attributes:
        environment: environment of the run.
        commit: git commit of the source.
        run: id of the run.
        started, finished: ISO 8601 timestamps in UTC with a trailing Z.
    """

    environment: str
    commit: str
    run: str
    started: str
    finished: str


class Dependency(Declaration):
    """Input of a run, by digest."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    digest: dict[Literal["sha256", "gitCommit"], Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40,64}$")]]


class ExternalParameters(Declaration):
    """Parameters of a run: the model and the dataset version."""

    model: Name
    dataset: DatasetVersion


class BuildDefinition(Declaration):
    """Inputs of a run."""

    build_type: Literal["urn:mlops:training:v1"] = Field("urn:mlops:training:v1", alias="buildType")
    external: ExternalParameters = Field(alias="externalParameters")
    dependencies: Annotated[tuple[Dependency, ...], Field(alias="resolvedDependencies", max_length=16)]


class Builder(Declaration):
    """Builder of a bundle: `<environment>/train-<model>@<digest of the training image>`."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class RunMetadata(Declaration):
    """Id and times of a run."""

    run: RunId = Field(alias="invocationId")
    started: Instant = Field(alias="startedOn")
    finished: Instant = Field(alias="finishedOn")


class RunDetails(Declaration):
    """Run that made a bundle."""

    builder: Builder
    metadata: RunMetadata


class Provenance(Declaration):
    """Predicate of a provenance statement."""

    definition: BuildDefinition = Field(alias="buildDefinition")
    run: RunDetails = Field(alias="runDetails")

    @property
    def commit(self) -> str:
        """Git commit of the source."""
        return self._digest("commit", "gitCommit")

    @property
    def policy(self) -> str:
        """Digest of the gates in `model.yaml` at that commit."""
        return "sha256:" + self._digest("gates", "sha256")

    def _digest(self, name: str, algorithm: Literal["sha256", "gitCommit"]) -> str:
        for dependency in self.definition.dependencies:
            if dependency.name == name and algorithm in dependency.digest:
                return dependency.digest[algorithm]
        raise MlopsError(f"the provenance of {self.definition.external.model} has no dependency {name!r}")


class Evaluated(Declaration):
    """Predicate of an evaluation statement.

    Attributes:
        evaluation: digest of the bundle's `evaluation.json`.
        gates: digest of the gates in `model.yaml` at the time of the evaluation.
        contract: digest of the contract.
        dataset: dataset version that contains the holdout.
    """

    evaluation: Digest
    gates: Digest
    contract: Digest
    dataset: DatasetVersion


@dataclass(frozen=True)
class VerifiedBundle:
    """Bundle whose content and evidence were verified.

    Attributes:
        digest: id of the bundle.
        manifest: its `bundle.json`.
        files: name → content of the requested files.
        provenances: one for each commit that produced the bundle, or only the first; at least one.
        evaluated: its evaluation statement.
        signer: environment that signed all statements.
    """

    digest: str
    manifest: Bundle
    files: Mapping[str, bytes]
    provenances: tuple[Provenance, ...]
    evaluated: Evaluated
    signer: str

    @property
    def provenance(self) -> Provenance:
        """Provenance of the first run that made the bundle."""
        return self.provenances[0]

    @property
    def commits(self) -> tuple[str, ...]:
        """Commits that produced the bundle, for example on a branch and then on main."""
        return tuple(provenance.commit for provenance in self.provenances)


def prefix_of(model: str, digest: str) -> str:
    """Return the key prefix of a bundle's evidence in a registry bucket, with a trailing slash."""
    return f"evidence/{checked_name(model)}/sha256/{bundles.hex_of(digest)}/"


def builder_of(environment: str, manifest: Bundle) -> str:
    """Return the builder id for the model and image of a manifest in an environment."""
    return f"{environment}/train-{manifest.model}@{manifest.image}"


def provenance_of(manifest: Bundle, gates: str, build: Build) -> Provenance:
    """Make the provenance of a bundle.

    Args:
        manifest: the bundle.
        gates: digest of the gates in `model.yaml`.
        build: the run that made it.

    Raises:
        MlopsError: the commit or the run id is malformed.
    """
    inputs = {
        "commit": ("gitCommit", build.commit),
        "contract": ("sha256", manifest.contract),
        "gates": ("sha256", gates),
        "image": ("sha256", manifest.image),
        "model": ("sha256", manifest.source.model),
        "pipelines": ("sha256", manifest.source.pipelines),
        "requirements": ("sha256", manifest.source.requirements),
        "rows": ("sha256", manifest.dataset.content),
    }
    value = {
        "buildDefinition": {
            "externalParameters": {"model": manifest.model, "dataset": manifest.dataset.model_dump(mode="json")},
            "resolvedDependencies": [
                {"name": name, "digest": {algorithm: digest.removeprefix("sha256:")}}
                for name, (algorithm, digest) in inputs.items()
            ],
        },
        "runDetails": {
            "builder": {"id": builder_of(build.environment, manifest)},
            "metadata": {"invocationId": build.run, "startedOn": build.started, "finishedOn": build.finished},
        },
    }
    return _predicate(Provenance, value, "the provenance of this run")


def attest(
    descriptor: EnvironmentDescriptor, manifest: Bundle, gates: str, build: Build
) -> tuple[Provenance, Evaluated]:
    """Sign and store the provenance and the evaluation of a bundle.

    Evidence is only added, never changed. Existing statements that verify and agree are kept. A bundle that is made
    again from another commit gets another provenance.

    Args:
        descriptor: environment of the run.
        manifest: the bundle.
        gates: digest of the gates in `model.yaml`.
        build: the run.

    Raises:
        MlopsError: KMS or S3 failed; or existing evidence does not verify or disagrees.
    """
    provenance = provenance_of(manifest, gates, build)
    evaluated = Evaluated(
        evaluation=manifest.files["evaluation.json"].sha256,
        gates=gates,
        contract=manifest.contract,
        dataset=manifest.dataset,
    )
    another = f"provenance-{build.commit[:12]}{SUFFIX}"
    existing = _existing_statement(descriptor, manifest, FIRST, provenance)
    if existing is None or existing.commit != build.commit:
        _store_statement(descriptor, manifest, FIRST if existing is None else another, provenance)
    _store_statement(descriptor, manifest, EVALUATED, evaluated)
    return provenance, evaluated


P = TypeVar("P", Provenance, Evaluated)


def _store_statement(descriptor: EnvironmentDescriptor, manifest: Bundle, name: str, predicate: P) -> None:
    """Sign and store a statement unless it exists; an existing evaluation must be equal."""
    key = prefix_of(manifest.model, manifest.digest) + name
    found = _existing_statement(descriptor, manifest, name, predicate)
    if found is None:
        value = predicate.model_dump(mode="json", by_alias=True)
        statement = signing.Statement.about(manifest.model, manifest.digest, _TYPES[type(predicate)], value)
        envelope = signing.sign(statement, descriptor.signing_key, descriptor.name)
        try:
            store.put_new(descriptor.registry_bucket, key, envelope.to_bytes())
        except store.PreconditionFailedError:
            # A concurrent run stored the statement first.
            found = _existing_statement(descriptor, manifest, name, predicate)
    if isinstance(found, Evaluated) and found != predicate:
        raise signing.BadSignatureError(
            f"s3://{descriptor.registry_bucket}/{key} is another evaluation of {manifest.digest}: "
            f"expected {predicate}, found {found}"
        )


def _existing_statement(descriptor: EnvironmentDescriptor, manifest: Bundle, name: str, like: P) -> P | None:
    """Return the predicate of an existing statement, verified; None if there is none."""
    found = read_statement(descriptor, manifest.model, manifest.digest, name, type(like))
    return None if found is None else found[0]


def read_statement(
    descriptor: EnvironmentDescriptor, model: str, digest: str, name: str, kind: type[P]
) -> tuple[P, str] | None:
    """Read and verify a statement about a bundle.

    Args:
        descriptor: environment whose registry to read.
        model: name of the model.
        digest: id of the bundle.
        name: name of the statement's file.
        kind: type of the predicate.

    Returns:
        The predicate and the environment that signed it; None if the statement does not exist.

    Raises:
        BadSignatureError: the statement is not signed by a trusted key, or is about something else.
        MlopsError: the registry cannot be read.
    """
    bucket, key = descriptor.registry_bucket, prefix_of(model, digest) + name
    where = f"s3://{bucket}/{key}"
    try:
        content = store.get(bucket, key, limit=signing.LARGEST_ENVELOPE).content
    except store.NotFoundError:
        return None
    except store.TooLargeError as error:
        raise signing.BadSignatureError(error.what) from None
    verified = signing.verify(content, descriptor.trusted_keys, subject=digest, predicate_type=_TYPES[kind], what=where)
    try:
        return kind.model_validate_json(json.dumps(verified.statement.predicate)), verified.signer
    except ValidationError as error:
        raise signing.BadSignatureError(
            f"{where} is not a valid {name.partition('.')[0]}: {first_problem(error)}"
        ) from None


def names_of_statements(descriptor: EnvironmentDescriptor, model: str, digest: str) -> list[str]:
    """List the names of a bundle's statements: provenances, the first run's first, then the evaluation.

    Other objects under the prefix are no evidence, and left out.

    Raises:
        UnsignedBundleError: there is no provenance, or no evaluation.
        MlopsError: the registry cannot be read.
    """
    bucket, prefix = descriptor.registry_bucket, prefix_of(model, digest)
    present = sorted(listed.key.removeprefix(prefix) for listed in store.listing(bucket, prefix))
    for name in (FIRST, EVALUATED):
        if name not in present:
            raise UnsignedBundleError(
                f"the bundle {digest} of {model} has no signed {name.partition('.')[0]}: s3://{bucket}/{prefix}{name} "
                "does not exist",
                fix="train again; the next run completes an interrupted one",
            )
    return [FIRST, *filter(_LATER.fullmatch, present), EVALUATED]


def copy_statements(source: EnvironmentDescriptor, target: EnvironmentDescriptor, model: str, digest: str) -> None:
    """Copy the signed evidence about a bundle to another registry. Existing statements must be equal.

    Raises:
        UnsignedBundleError: the evidence is missing or incomplete.
        BadSignatureError: the target does not trust the signer, or has another statement under the same name.
        MlopsError: a registry cannot be read or written.
    """
    for name in names_of_statements(source, model, digest):
        key = prefix_of(model, digest) + name
        content = store.get(source.registry_bucket, key, limit=signing.LARGEST_ENVELOPE).content
        where = f"s3://{source.registry_bucket}/{key}"
        signing.verify(content, target.trusted_keys, subject=digest, what=where)
        try:
            store.put_new(target.registry_bucket, key, content)
        except store.PreconditionFailedError:
            found = store.get(target.registry_bucket, key, limit=signing.LARGEST_ENVELOPE).content
            if found != content:
                raise signing.BadSignatureError(
                    f"s3://{target.registry_bucket}/{key} differs from {where}: expected {digest_of_bytes(content)}, "
                    f"found {digest_of_bytes(found)}",
                    fix="find out who wrote it; evidence must never change",
                ) from None


def digests_of_statements(descriptor: EnvironmentDescriptor, model: str, digest: str) -> dict[str, str]:
    """Return the statements that every bundle has, `provenance` and `evaluation` → digest of the stored envelope.

    Raises:
        MlopsError: a statement does not exist, or the registry cannot be read.
    """
    prefix, found = prefix_of(model, digest), {}
    for name in (FIRST, EVALUATED):
        content = store.get(descriptor.registry_bucket, prefix + name, limit=signing.LARGEST_ENVELOPE).content
        found[name.removesuffix(SUFFIX)] = digest_of_bytes(content)
    return found


def verify_bundle(
    descriptor: EnvironmentDescriptor,
    model: str,
    digest: str,
    names: Collection[str] | None = None,
    *,
    signer: str | None = None,
    all_runs: bool = True,
) -> VerifiedBundle:
    """Read a bundle and its evidence, and verify the content, the signatures, and that they match.

    Args:
        descriptor: environment whose registry to read and whose trusted keys to use.
        model: name of the model.
        digest: id of the bundle.
        names: the files to read, or None for all; see `bundles.fetch`.
        signer: environment that must have signed the evidence; None for any trusted one.
        all_runs: read the provenance of every run that made the bundle; otherwise of the first one only, which takes
            the same time for every bundle.

    Raises:
        UnknownBundleError, TamperedBundleError: see `bundles.fetch`.
        UnsignedBundleError: evidence is missing.
        BadSignatureError: evidence is not signed by the expected key, or does not match the bundle.
        MlopsError: the registry cannot be read.
    """
    fetched = bundles.fetch(descriptor, model, digest, names)
    made = names_of_statements(descriptor, model, digest)[:-1] if all_runs else [FIRST]
    evaluated, by = _required(descriptor, model, digest, EVALUATED, Evaluated)
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        provenances = list(pool.map(lambda name: _required(descriptor, model, digest, name, Provenance), made))
    signers = {by, *(who for _, who in provenances)}
    if len(signers) > 1 or (signer is not None and signers != {signer}):
        raise signing.BadSignatureError(
            f"the evidence about {digest} of {model} has the wrong signers: "
            f"expected only {signer or 'one environment'}, found {', '.join(sorted(signers))}"
        )
    manifest = fetched.manifest
    expected: list[tuple[str, object, object]] = [
        ("evaluation", evaluated.evaluation, manifest.files["evaluation.json"].sha256),
        ("contract", evaluated.contract, manifest.contract),
        ("dataset", evaluated.dataset, manifest.dataset),
    ]
    for provenance, _ in provenances:
        run = provenance.run.metadata
        build = Build(by, provenance.commit, run.run, run.started, run.finished)
        expected.append(("provenance", provenance, provenance_of(manifest, evaluated.gates, build)))
    for what, found, wanted in expected:
        if found != wanted:
            raise signing.BadSignatureError(
                f"the evidence about {digest} of {model} does not match the bundle: {what}: expected {wanted}, "
                f"found {found}"
            )
    return VerifiedBundle(digest, manifest, fetched.files, tuple(p for p, _ in provenances), evaluated, by)


def _required(descriptor: EnvironmentDescriptor, model: str, digest: str, name: str, kind: type[P]) -> tuple[P, str]:
    found = read_statement(descriptor, model, digest, name, kind)
    if found is None:
        where = f"s3://{descriptor.registry_bucket}/{prefix_of(model, digest)}{name}"
        raise UnsignedBundleError(
            f"the bundle {digest} of {model} has no signed {name.partition('.')[0]}: {where} does not exist",
            fix="train again; the next run completes an interrupted one",
        )
    return found


def _predicate(kind: type[P], value: dict[str, Any], what: str) -> P:
    try:
        return kind.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise MlopsError(f"{what} is malformed: {first_problem(error)}") from None


_TYPES: dict[type[Provenance] | type[Evaluated], str] = {Provenance: PROVENANCE, Evaluated: EVALUATION}
