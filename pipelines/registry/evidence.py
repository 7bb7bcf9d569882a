"""Signed evidence about a bundle: where it comes from (provenance) and how good it is (evaluation).

Statements hold digests, not documents: what KMS signs is small. Provenance has the shape of SLSA provenance v1,
https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, StringConstraints, ValidationError

from pipelines.declarations.bundle import Bundle, DatasetVersion
from pipelines.declarations.digests import Digest, digest_of_bytes
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import Name
from pipelines.registry import bundles, signing, store

PROVENANCE = "https://slsa.dev/provenance/v1"
EVALUATION = "urn:mlops:evaluation:v1"
SUFFIX = ".dsse.json"

MOST_STATEMENTS = 64
"""Statements kept about one bundle. Each commit that it was made from again adds one."""

Commit = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
Instant = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
RunId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]


class UnsignedBundleError(MlopsError):
    """A bundle lacks evidence."""


@dataclass(frozen=True)
class Build:
    """The run that made a bundle: what its manifest may not say, because it differs between equal runs.

    Attributes:
        environment: where it ran.
        commit: of the source, as git names it.
        run: the run's id.
        started, finished: UTC, ISO 8601 with a trailing Z.
    """

    environment: str
    commit: str
    run: str
    started: str
    finished: str


class Dependency(Declaration):
    """Something the run used, by digest."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    digest: dict[Literal["sha256", "gitCommit"], Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40,64}$")]]


class ExternalParameters(Declaration):
    """What was asked for: this model, from this version of the data."""

    model: Name
    dataset: DatasetVersion


class BuildDefinition(Declaration):
    """The inputs of the run."""

    build_type: Literal["urn:mlops:training:v1"] = Field("urn:mlops:training:v1", alias="buildType")
    external: ExternalParameters = Field(alias="externalParameters")
    dependencies: Annotated[tuple[Dependency, ...], Field(alias="resolvedDependencies", max_length=16)]


class Builder(Declaration):
    """Who ran it: `<environment>/train-<model>@<digest of the training image>`."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class RunMetadata(Declaration):
    """Which run it was, and when."""

    run: RunId = Field(alias="invocationId")
    started: Instant = Field(alias="startedOn")
    finished: Instant = Field(alias="finishedOn")


class RunDetails(Declaration):
    """The run."""

    builder: Builder
    metadata: RunMetadata


class Provenance(Declaration):
    """The predicate of a provenance statement."""

    definition: BuildDefinition = Field(alias="buildDefinition")
    run: RunDetails = Field(alias="runDetails")

    @property
    def commit(self) -> str:
        """The commit of the source."""
        return self._digest("commit", "gitCommit")

    @property
    def policy(self) -> str:
        """The digest of the gates in `model.yaml` at that commit."""
        return "sha256:" + self._digest("gates", "sha256")

    def _digest(self, name: str, algorithm: Literal["sha256", "gitCommit"]) -> str:
        for dependency in self.definition.dependencies:
            if dependency.name == name and algorithm in dependency.digest:
                return dependency.digest[algorithm]
        raise MlopsError(f"the provenance of {self.definition.external.model} names no {name}")


class Evaluated(Declaration):
    """The predicate of an evaluation statement.

    Attributes:
        evaluation: digest of the bundle's `evaluation.json`.
        gates: digest of the gates in `model.yaml`, as they were declared when it was evaluated.
        contract: digest of the contract.
        dataset: the data that the holdout was taken from.
    """

    evaluation: Digest
    gates: Digest
    contract: Digest
    dataset: DatasetVersion


@dataclass(frozen=True)
class VerifiedBundle:
    """A bundle whose content and evidence were checked.

    Attributes:
        digest: its id.
        manifest: its `bundle.json`.
        files: name → content, of the files that were asked for.
        provenances: one for each commit that it was made from; at least one.
        evaluated: what its evaluation states.
        signer: the environment that signed all of it.
    """

    digest: str
    manifest: Bundle
    files: Mapping[str, bytes]
    provenances: tuple[Provenance, ...]
    evaluated: Evaluated
    signer: str

    @property
    def provenance(self) -> Provenance:
        """Of the run that made it first."""
        return self.provenances[0]

    @property
    def commits(self) -> tuple[str, ...]:
        """The commits that it was made from: the same content may be on a branch first and on main later."""
        return tuple(provenance.commit for provenance in self.provenances)


def prefix_of(model: str, digest: str) -> str:
    """Where in a registry bucket the evidence about a bundle lies; ends in a slash."""
    return f"evidence/{bundles.checked_name(model)}/sha256/{bundles.hex_of(digest)}/"


def builder_of(environment: str, manifest: Bundle) -> str:
    """The id of the builder that makes a model's bundles in an environment with the manifest's image."""
    return f"{environment}/train-{manifest.model}@{manifest.image}"


def provenance_of(manifest: Bundle, gates: str, build: Build) -> Provenance:
    """What a run states about where its bundle comes from.

    Raises:
        MlopsError: the commit or the run's id is not well formed.
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
    """Sign, and store beside the bundle, where it comes from and how it was evaluated.

    Evidence is only ever added. What is there already, verifies, and says the same is kept; a bundle that is made
    again from another commit gets one more provenance.

    Args:
        descriptor: the environment that the run belongs to.
        manifest: the bundle's.
        gates: digest of the gates that `model.yaml` declares.
        build: the run.

    Raises:
        MlopsError: KMS or S3 refused; or evidence is there that does not verify or says something else.
    """
    provenance = provenance_of(manifest, gates, build)
    evaluated = Evaluated(
        evaluation=manifest.files["evaluation.json"].sha256,
        gates=gates,
        contract=manifest.contract,
        dataset=manifest.dataset,
    )
    first, another = f"provenance{SUFFIX}", f"provenance-{build.commit[:12]}{SUFFIX}"
    noted = _said(descriptor, manifest, first, provenance)
    if noted is None or noted.commit != build.commit:
        _say(descriptor, manifest, first if noted is None else another, provenance)
    _say(descriptor, manifest, f"evaluation{SUFFIX}", evaluated)
    return provenance, evaluated


P = TypeVar("P", Provenance, Evaluated)


def _say(descriptor: EnvironmentDescriptor, manifest: Bundle, name: str, predicate: P) -> None:
    """Store a signed statement, unless it was made before; an evaluation made before must say the same."""
    key = prefix_of(manifest.model, manifest.digest) + name
    found = _said(descriptor, manifest, name, predicate)
    if found is None:
        value = predicate.model_dump(mode="json", by_alias=True)
        statement = signing.Statement.about(manifest.model, manifest.digest, _TYPES[type(predicate)], value)
        envelope = signing.sign(statement, descriptor.signing_key, descriptor.name)
        try:
            store.put_new(descriptor.registry_bucket, key, envelope.to_bytes())
        except store.PreconditionFailedError:
            # Another run of the same bundle was faster.
            found = _said(descriptor, manifest, name, predicate)
    if isinstance(found, Evaluated) and found != predicate:
        raise signing.BadSignatureError(
            f"s3://{descriptor.registry_bucket}/{key} states another evaluation of {manifest.digest}: "
            f"expected {predicate}, found {found}"
        )


def _said(descriptor: EnvironmentDescriptor, manifest: Bundle, name: str, like: P) -> P | None:
    """The verified statement of this name that the environment made before, if it did."""
    found = read_statement(descriptor, manifest.model, manifest.digest, name, type(like))
    return None if found is None else found[0]


def read_statement(
    descriptor: EnvironmentDescriptor, model: str, digest: str, name: str, kind: type[P]
) -> tuple[P, str] | None:
    """A statement about a bundle and the environment that signed it, or None if there is no such statement.

    Raises:
        BadSignatureError: it is there, but no trusted key signed it, or it is about something else.
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
        raise signing.BadSignatureError(f"{where} does not state a {name.partition('.')[0]}: {_first(error)}") from None


def names_of_statements(descriptor: EnvironmentDescriptor, model: str, digest: str) -> list[str]:
    """The names, within their prefix, of the provenances and of the evaluation of a bundle; the first run's first.

    Raises:
        UnsignedBundleError: there is no provenance, or no evaluation.
        MlopsError: the registry cannot be read.
    """
    bucket, prefix = descriptor.registry_bucket, prefix_of(model, digest)
    present = [key.removeprefix(prefix) for key in store.sizes(bucket, prefix, limit=MOST_STATEMENTS)]
    provenances = [n for n in present if n.startswith("provenance-") and n.endswith(SUFFIX)]
    needed = (f"provenance{SUFFIX}", f"evaluation{SUFFIX}")
    for name in needed:
        if name not in present:
            raise UnsignedBundleError(
                f"the bundle {digest} of {model} has no signed {name.partition('.')[0]}: s3://{bucket}/{prefix}{name} "
                "does not exist",
                fix="train again: a run that was interrupted is finished by the next one",
            )
    return [needed[0], *provenances, needed[1]]


def copy_statements(source: EnvironmentDescriptor, target: EnvironmentDescriptor, model: str, digest: str) -> None:
    """Copy the evidence about a bundle, as it was signed, into another registry. What is there already must be equal.

    Raises:
        UnsignedBundleError: there is none, or not all of it.
        BadSignatureError: a key that the target does not trust signed it; or the target holds something else.
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
                    f"s3://{target.registry_bucket}/{key} is not what {where} is: expected {digest_of_bytes(content)}, "
                    f"found {digest_of_bytes(found)}",
                    fix="find out who wrote it; evidence is never changed",
                ) from None


def digests_of_statements(descriptor: EnvironmentDescriptor, model: str, digest: str) -> dict[str, str]:
    """Name of each statement about a bundle (`provenance`, `evaluation`) → digest of its stored envelope.

    Raises:
        UnsignedBundleError: there is no provenance, or no evaluation.
        MlopsError: the registry cannot be read.
    """
    prefix = prefix_of(model, digest)
    found = {}
    for name in names_of_statements(descriptor, model, digest):
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
) -> VerifiedBundle:
    """Read a bundle and its evidence, and check both: the content, who signed, and that they speak of each other.

    Args:
        descriptor: the environment whose registry is read and whose trusted keys count.
        model: the model's name.
        digest: the bundle's id.
        names: the files wanted, or None for all; see `bundles.fetch`.
        signer: the environment that must have made it; None for any trusted one.

    Raises:
        UnknownBundleError, TamperedBundleError: see `bundles.fetch`.
        UnsignedBundleError: evidence is missing.
        BadSignatureError: evidence is not signed by the expected key, or does not match the bundle.
        MlopsError: the registry cannot be read.
    """
    fetched = bundles.fetch(descriptor, model, digest, names)
    *made, rated = names_of_statements(descriptor, model, digest)
    evaluated, by = _required(descriptor, model, digest, rated, Evaluated)
    provenances = [_required(descriptor, model, digest, name, Provenance) for name in made]
    signers = {by, *(who for _, who in provenances)}
    if len(signers) > 1 or (signer is not None and signers != {signer}):
        raise signing.BadSignatureError(
            f"the evidence about {digest} of {model} is signed by {', '.join(sorted(signers))}; "
            f"expected {signer or 'one environment'} alone"
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
        raise UnsignedBundleError(f"{name} of the bundle {digest} of {model} was removed while it was read")
    return found


def _predicate(kind: type[P], value: dict[str, Any], what: str) -> P:
    try:
        return kind.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise MlopsError(f"{what} is not well formed: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}; found {detail['input']!r}"


_TYPES: dict[type[Provenance] | type[Evaluated], str] = {Provenance: PROVENANCE, Evaluated: EVALUATION}
