"""Read the facts of lineage from the environments. Read-only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

from pipelines.data.catalog import MissingTableError, open_table
from pipelines.data.expired_versions import ExpiredVersion, read_expired
from pipelines.data.versions import TableVersion, list_versions
from pipelines.declarations.bundle import RequestSchema
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import DeclarationError, MlopsError
from pipelines.declarations.names import predictions_name
from pipelines.declarations.project import Project
from pipelines.lineage.facts import BundleFact, LineageFacts, PredictionFact, ReleaseFact, VersionFact
from pipelines.registry import bundles, evidence, store
from pipelines.registry.ledger import Entry, Ledger
from pipelines.registry.named_versions import MOST_MODELS, READ_AT_ONCE, every_bundle


def gather_facts(project: Project, descriptors: Mapping[str, EnvironmentDescriptor]) -> LineageFacts:
    """Read the facts of all environments.

    Args:
        project: the repository; its contracts name the datasets, and its models their targets.
        descriptors: environment → descriptor, in the order of promotion.

    Raises:
        MlopsError: a table, a registry or a ledger cannot be read, or was tampered with.
    """
    with _reading("the lineage", "tables, registries and ledgers"):
        bundle_facts: dict[tuple[str, str], BundleFact] = {}
        versions: list[VersionFact] = []
        releases: list[ReleaseFact] = []
        predictions: list[PredictionFact] = []
        for descriptor in descriptors.values():
            for dataset in project.dataset_names:
                versions += read_versions(descriptor, dataset)
            for model in project.model_names:
                predictions += read_predictions(descriptor, model)
            for fact in read_bundles(descriptor):
                bundle_facts.setdefault((fact.model, fact.digest), fact)  # the first environment trained it
            releases += read_releases(descriptor)
    return LineageFacts(
        gathered=datetime.now(UTC),
        environments=tuple(descriptors),
        versions=tuple(sorted(versions, key=lambda fact: fact.at)),
        bundles=tuple(bundle_facts.values()),
        releases=tuple(sorted(releases, key=lambda fact: fact.at)),
        predictions=tuple(sorted(predictions, key=lambda fact: fact.at)),
        targets=dict(_targets(project)),
    )


def gather_live_facts(project: Project, descriptors: Mapping[str, EnvironmentDescriptor]) -> LineageFacts:
    """Read only which bundles of the repository's models are live, and what they read: a few objects for each.

    Args:
        project: the repository.
        descriptors: environment → descriptor.

    Raises:
        MlopsError: a registry or a ledger cannot be read, or was tampered with.
    """
    found: dict[tuple[str, str], BundleFact] = {}
    releases: list[ReleaseFact] = []
    with _reading("the live releases", "registries and ledgers"):
        for descriptor in descriptors.values():
            for model in project.model_names:
                entry = Ledger(descriptor, model).went_live()
                if entry is None or entry.event.live is None:
                    continue
                releases.append(_release(descriptor, model, entry, is_live=True))
                bundle = _read_bundle(descriptor, model, entry.event.live)
                if bundle is not None:
                    found[model, bundle.digest] = bundle
    return LineageFacts(
        gathered=datetime.now(UTC),
        environments=tuple(descriptors),
        versions=(),
        bundles=tuple(found.values()),
        releases=tuple(releases),
        targets=dict(_targets(project)),
    )


@contextmanager
def _reading(what: str, where: str) -> Iterator[None]:
    """Raise `MlopsError` if something cannot be read."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, OSError) as error:
        raise MlopsError(f"{what} cannot be read: {error}", fix=f"check that the caller may read {where}") from error


def _targets(project: Project) -> Iterator[tuple[str, str]]:
    for name in project.model_names:
        try:
            yield name, project.model(name).target
        except DeclarationError:
            continue


def read_versions(descriptor: EnvironmentDescriptor, dataset: str) -> list[VersionFact]:
    """Read the versions of a dataset; none if the environment has no table of it."""
    facts = []
    before: str | None = None
    for version in _every_version(descriptor, dataset):
        facts.append(
            VersionFact(
                environment=descriptor.name,
                dataset=dataset,
                snapshot=version.snapshot,
                # The parent of a version is lost when it expires; the rows of those that the table has are a chain.
                parent=before if version.is_included else version.parent,
                at=version.at,
                rows=version.rows,
                file=version.file,
                batch=version.batch,
                contract=version.contract,
            )
        )
        before = version.snapshot if version.is_included else before
    return facts


def _every_version(descriptor: EnvironmentDescriptor, name: str) -> list[TableVersion | ExpiredVersion]:
    """Return the versions of a table, and the expired ones, the oldest first; none without a table."""
    try:
        table = open_table(descriptor, name)
    except MissingTableError:
        return []
    found: dict[str, TableVersion | ExpiredVersion] = {each.snapshot: each for each in list_versions(table)}
    for expired in read_expired(descriptor, name):
        found.setdefault(expired.snapshot, expired)  # recorded, but the job was killed before the version expired
    return sorted(found.values(), key=lambda version: version.at)


def read_predictions(descriptor: EnvironmentDescriptor, model: str) -> list[PredictionFact]:
    """Read the batch predictions of a model, the newest first; none if the environment has no table of them."""
    facts = []
    for version in reversed(_every_version(descriptor, predictions_name(model))):
        if version.bundle is None:  # another engine has written it, for example a compaction
            continue
        dataset, read = version.read_version or (None, None)
        facts.append(
            PredictionFact(
                environment=descriptor.name,
                model=model,
                snapshot=version.snapshot,
                at=version.at,
                rows=version.added,
                bundle=version.bundle,
                file=version.file,
                dataset=dataset,
                read=read,
            )
        )
    return facts


def read_bundles(descriptor: EnvironmentDescriptor) -> list[BundleFact]:
    """Read every complete bundle in an environment's registry."""
    every = every_bundle(descriptor)
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        found = pool.map(lambda each: _read_bundle(descriptor, *each), every)
        return [fact for fact in found if fact is not None]


def _read_bundle(descriptor: EnvironmentDescriptor, model: str, digest: str) -> BundleFact | None:
    try:
        fetched = bundles.fetch(descriptor, model, digest, ["schema.json"])
    except bundles.UnknownBundleError:  # an interrupted push has left no manifest
        return None
    manifest = fetched.manifest
    try:
        schema = RequestSchema.model_validate_json(fetched.files["schema.json"])
        features = tuple(column.name for tensor in schema.inputs for column in tensor.columns)
    except ValueError:
        features = ()
    origin = _origin(descriptor, model, digest)
    return BundleFact(
        environment=descriptor.name if origin is None else origin.run.builder.id.partition("/")[0],
        model=model,
        digest=digest,
        dataset=manifest.dataset.dataset,
        snapshot=manifest.dataset.snapshot,
        rows=manifest.dataset.rows,
        features=features,
        commit=origin.commit if origin is not None else None,
        run=origin.run.metadata.run if origin is not None else None,
        trained=datetime.fromisoformat(origin.run.metadata.finished) if origin is not None else None,
    )


def _origin(descriptor: EnvironmentDescriptor, model: str, digest: str) -> evidence.Provenance | None:
    """Return the verified provenance of a bundle's first run; None without one."""
    try:
        found = evidence.read_statement(descriptor, model, digest, f"provenance{evidence.SUFFIX}", evidence.Provenance)
    except MlopsError:
        return None
    return found[0] if found is not None else None


def read_releases(descriptor: EnvironmentDescriptor) -> list[ReleaseFact]:
    """Read the records of all ledgers of an environment that changed what is live, verified."""
    models = store.folders(descriptor.registry_bucket, "ledger/", limit=MOST_MODELS)
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        return [fact for facts in pool.map(lambda model: list(_releases(descriptor, model)), models) for fact in facts]


def _releases(descriptor: EnvironmentDescriptor, model: str) -> Iterable[ReleaseFact]:
    newest = True
    for entry in Ledger(descriptor, model).back():
        event = entry.event
        if event.result not in ("verified", "withdrawn"):
            continue
        yield _release(descriptor, model, entry, is_live=newest and event.live is not None)
        newest = False


def _release(descriptor: EnvironmentDescriptor, model: str, entry: Entry, *, is_live: bool) -> ReleaseFact:
    event = entry.event
    return ReleaseFact(
        environment=descriptor.name,
        model=model,
        number=entry.record.number,
        bundle=event.live,
        ended=event.before,
        at=entry.at,
        action=event.action,
        is_live=is_live,
    )
