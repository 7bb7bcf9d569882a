from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.data.catalog import open_table, read_version
from pipelines.data.ingest import ingest
from pipelines.data.landing import upload
from pipelines.data.table_changes import TableChange, make_change
from pipelines.data.versions import list_versions
from pipelines.declarations.bundle import RequestSchema
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import DeclarationError
from pipelines.declarations.model import Model
from pipelines.declarations.project import Project
from pipelines.lineage.facts import LineageFacts
from pipelines.lineage.gather_facts import gather_facts, gather_live_facts, read_versions
from pipelines.lineage.graph import build_graph, bundle_node, trace
from pipelines.promotion.replicate import replicate
from pipelines.registry.ledger import Event, Ledger, new_attempt
from tests.aws import EmulatedAccount
from tests.pipelines.data.contracts import column, contract
from tests.signing_environments import COMMIT, MODEL, example_files, make_signing_environment, register

pytestmark = pytest.mark.slow

CONTRACT = contract(column("age", "integer"))
SCHEMA = RequestSchema.model_validate(
    {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": (-1, 1), "columns": ({"name": "age"},)}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": (-1, 1)}],
    },
    strict=False,
)


class Declared(Project):
    """A project of one dataset and no models."""

    dataset_names = ("visits",)
    model_names: tuple[str, ...] = ()

    def model(self, name: str) -> Model:
        raise DeclarationError([])


@pytest.fixture
def land(tmp_path: Path) -> Callable[[EnvironmentDescriptor, int], None]:
    def add(dev: EnvironmentDescriptor, number: int) -> None:
        path = tmp_path / f"{number}.csv"
        path.write_text(f"id,age\n{number},30\n")
        upload(dev, "visits", path)
        ingest(dev, CONTRACT, lambda _: None)

    return add


def files(facts: LineageFacts, digest: str) -> list[str]:
    found = trace(build_graph(facts), [bundle_node(MODEL, digest)], back=True, forward=False)
    return sorted(node.name for node in found.edges if node.kind == "file")


def test_a_live_bundle_leads_back_to_its_landing_files_also_after_versions_expired(
    account: EmulatedAccount, tmp_path: Path, land: Callable[[EnvironmentDescriptor, int], None]
) -> None:
    dev = make_signing_environment("dev", None, CONTRACT)
    staging = make_signing_environment("staging", dev)
    for number in (1, 2, 3):
        land(dev, number)
    first, second, third = (version.snapshot for version in reversed(list_versions(open_table(dev, "visits"))))
    _, trained_on = read_version(dev, "visits", second)
    digest = register(dev, example_files(schema_json=SCHEMA.model_dump_json().encode()), dataset=trained_on)
    replicate(dev, staging, MODEL, digest)
    event = Event.of(attempt=new_attempt(), action="promotion", result="verified", before=None, to=digest, live=digest)
    Ledger(staging, MODEL).append(lambda _: event)
    project, descriptors = Declared(tmp_path), {"dev": dev, "staging": staging}
    facts = gather_facts(project, descriptors)
    (bundle,) = facts.bundles
    assert (bundle.environment, bundle.dataset, bundle.snapshot, bundle.rows) == ("dev", "visits", second, 2)
    assert (bundle.features, bundle.commit, bundle.run) == (("age",), COMMIT, "run-1")
    (release,) = facts.releases
    assert (release.environment, release.bundle, release.is_live) == ("staging", digest, True)
    project.model_names = (MODEL,)
    live = gather_live_facts(project, descriptors)
    assert (live.releases, live.bundles, live.versions) == (facts.releases, facts.bundles, ())
    assert [fact.file for fact in facts.versions] == ["1.csv", "2.csv", "3.csv"]
    assert [fact.parent for fact in facts.versions] == [None, first, second]
    assert files(facts, digest) == ["dev/visits/1.csv", "dev/visits/2.csv"]
    make_change(dev, CONTRACT, TableChange(action="expire", snapshots=(first,)), lambda _: None)
    assert [version.snapshot for version in list_versions(open_table(dev, "visits"))] == [third, second]
    assert read_versions(dev, "visits") == list(facts.versions)
    assert files(gather_facts(project, descriptors), digest) == ["dev/visits/1.csv", "dev/visits/2.csv"]
