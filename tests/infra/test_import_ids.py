"""Import ids of everything that the program of an environment creates."""

from __future__ import annotations

from pipelines.targets.import_ids import GENERATED, import_id
from tests.infra.recording import ACCOUNT, Recording


def test_every_resource_has_an_import_id_or_one_that_aws_generates(graphs: dict[str, Recording]) -> None:
    """So an interrupted creation of any resource is found again, or named."""
    found: dict[str, set[str]] = {}
    for graph in graphs.values():
        for one in graph.resources:
            if one.type.startswith(("aws:", "kubernetes:")):
                chosen = import_id(one.type, one.props, lambda: ACCOUNT)
                assert (chosen is None) == (one.type in GENERATED), f"{one.type} {one.name}: {chosen}"
                if chosen is not None:
                    found.setdefault(one.type, set()).add(chosen)
    assert len(found) > 15
    assert f"{ACCOUNT}:mlops_dev" in found["aws:glue/catalogDatabase:CatalogDatabase"]
    assert "models-dev" in found["kubernetes:core/v1:Namespace"]
