from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cli.lineage_queries import lineage
from pipelines.declarations.errors import MlopsError
from pipelines.lineage.drawing import LAYERS, MOST_DRAWN, draw_graph
from pipelines.lineage.facts import COPY, LineageFacts, read_saved_facts, save_facts
from pipelines.lineage.graph import (
    LineageGraph,
    LineageNode,
    build_graph,
    bundle_node,
    find_bundle,
    find_nodes,
    find_prediction,
    graph_json,
    graph_lines,
    prediction_node,
    trace,
    version_node,
)
from tests.pipelines.lineage.example_facts import NOW, bundle, digest, facts, prediction, release, version
from tests.sample_project import PROJECT, ROOT

KNOWN = facts(
    version(1),
    version(2, contract="1.1.0"),
    version(3, parent="1"),  # the table was rolled back from version 2
    version(4, parent="3", file="odd <name>.csv"),
    bundle(1, snapshot=2),
    bundle(2, snapshot=4, features=("age",)),
    release(1, 1),
    release(1, 2, environment="staging", is_live=True),
    release(2, 2, ended=1, is_live=True),
    targets={"price": "paid"},
    environments=("dev", "staging", "prod"),
)


def names(graph: LineageGraph, kind: str) -> list[str]:
    return sorted(node.name for node in graph.edges if node.kind == kind)


def back(start: LineageNode) -> LineageGraph:
    return trace(build_graph(KNOWN), [start], back=True, forward=False)


def forward(*starts: LineageNode) -> LineageGraph:
    return trace(build_graph(KNOWN), starts, back=False, forward=True)


def test_a_bundle_leads_back_to_the_files_of_its_version_and_to_no_others() -> None:
    assert names(back(bundle_node("price", digest(1))), "file") == ["dev/visits/1.csv", "dev/visits/2.csv"]
    newest = back(bundle_node("price", digest(2)))
    assert names(newest, "file") == ["dev/visits/1.csv", "dev/visits/3.csv", "dev/visits/odd <name>.csv"]
    assert names(newest, "version") == ["dev/visits@4"]
    assert names(newest, "contract") == ["visits@1.0.0"]
    assert names(newest, "column") == ["visits.age", "visits.paid"]


def test_a_file_a_column_and_a_contract_lead_to_the_releases_that_they_reached() -> None:
    graph = build_graph(KNOWN)
    reached = {
        name: (names(found, "bundle"), names(found, "release"))
        for name, found in (
            ("1.csv", forward(*find_nodes(graph, "file", ends="/visits/1.csv"))),
            ("2.csv", forward(*find_nodes(graph, "file", ends="/visits/2.csv"))),
            ("size", forward(LineageNode("column", "visits.size"))),
            ("paid", forward(LineageNode("column", "visits.paid"))),
            ("1.1.0", forward(LineageNode("contract", "visits@1.1.0"))),
        )
    }
    one, two = f"price@{digest(1)}", f"price@{digest(2)}"
    assert reached == {
        "1.csv": ([one, two], ["prod/price", "staging/price"]),
        "2.csv": ([one], ["prod/price"]),
        "size": ([one], ["prod/price"]),
        "paid": ([one, two], ["prod/price", "staging/price"]),
        "1.1.0": ([one], ["prod/price"]),
    }


def test_a_file_shows_the_version_that_it_made_even_if_no_bundle_reads_it() -> None:
    unread = build_graph(facts(version(1), version(2), bundle(1, snapshot=1)))
    found = trace(unread, find_nodes(unread, "file", ends="/visits/2.csv"), back=False, forward=True)
    assert names(found, "version") == ["dev/visits@2"] and names(found, "bundle") == []


def test_the_live_bundle_is_found_by_environment_and_others_by_their_digest() -> None:
    assert find_bundle(KNOWN, "price") == bundle_node("price", digest(2))
    late = facts(*KNOWN.releases, release(3, 3, environment="staging", is_live=True), environments=KNOWN.environments)
    assert find_bundle(late, "price", environment="staging") == bundle_node("price", digest(3))
    assert find_bundle(late, "price") == bundle_node("price", digest(2)), "of the last environment, not the newest"
    assert find_bundle(KNOWN, "price", digest(1)) == bundle_node("price", digest(1))
    assert find_bundle(facts(bundle(1 << 240, snapshot=1)), "price", "00010000").kind == "bundle"
    for arguments, message in (
        (("price", "", "dev"), "no bundle of price is live in dev"),
        (("other",), "no bundle of other is live in any environment: expected a live bundle, or a digest"),
        (("price", "00000000"), "has 2 bundles like"),
        (("price", digest(9)), "has no bundles like"),
        (("price", "0"), "expected one, by 8 digits or more"),
    ):
        with pytest.raises(MlopsError, match=message):
            find_bundle(KNOWN, *arguments)
    with pytest.raises(MlopsError, match=r"lineage has no file /visits/9\.csv: found dev/visits/1\.csv"):
        find_nodes(build_graph(KNOWN), "file", ends="/visits/9.csv")


def test_a_trace_is_shown_as_text_and_json() -> None:
    graph = forward(LineageNode("column", "visits.size"))
    assert graph_lines(graph) == [
        "columns:",
        "  visits.size",
        f"      → bundle price@{digest(1)}",
        "bundles:",
        f"  price@{digest(1)}  (trained 2026-11-30 00:00 UTC, commit 000000000000)",
        "      → release prod/price",
        "releases:",
        "  prod/price  (live: sha256:000000000000…)",
    ]
    columns = [LineageNode("column", f"visits.{name}") for name in ("age", "late", "size")]
    targets = {columns[0]: {columns[1]}, columns[1]: set(), columns[2]: {columns[1]}}
    grouped = LineageGraph(edges=targets, back={}, notes={}, live=set())
    assert graph_lines(grouped) == [
        "columns:",
        "  visits.age",
        "  visits.size",
        "      → column visits.late",
        "  visits.late",
    ]
    found = graph_json(back(bundle_node("price", digest(2))))
    edges = found["edges"]
    assert (
        isinstance(edges, list)
        and {"from": "version dev/visits@4", "to": f"bundle price@{digest(2)}", "live": False} in edges
    )


def test_a_drawing_is_valid_escaped_and_the_same_each_time() -> None:
    graph = trace(build_graph(KNOWN), [bundle_node("price", digest(2))], back=True, forward=True)
    text = draw_graph(graph, "Lineage of a <bundle>")
    assert text == draw_graph(graph, "Lineage of a <bundle>")
    root = ET.fromstring(text)  # noqa: S314 - our own output
    shown = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "dev/visits/odd <name>.csv" in shown and "Releases" in shown
    assert sum("live" in path.get("class", "") for path in root.iter("{http://www.w3.org/2000/svg}path")) == 2
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_a_drawing_of_many_files_counts_those_that_it_leaves_out() -> None:
    many = facts(*(version(number) for number in range(1, 101)), bundle(1, snapshot=100))
    text = draw_graph(trace(build_graph(many), [bundle_node("price", digest(1))], back=True, forward=True), "many")
    assert f"and {100 - MOST_DRAWN} more" in text


def test_a_query_finds_its_way_through_10_000_facts() -> None:
    many = facts(
        *(version(number) for number in range(1, 6001)),
        *(bundle(number, snapshot=number) for number in range(1, 3001)),
        *(release(number, number, is_live=number == 1000) for number in range(1, 1001)),
    )
    loaded = LineageFacts.model_validate_json(many.model_dump_json())
    graph = build_graph(loaded)
    found = trace(graph, find_nodes(graph, "file", ends="/visits/1.csv"), back=False, forward=True)
    assert len(names(found, "bundle")) == 3000


def test_a_bundle_after_4_000_versions_is_traced_in_one_pass() -> None:
    """Each file leads to the one version that is shown, past all that are left out."""
    total = 4_000
    facts = LineageFacts(
        gathered=NOW, versions=tuple(version(n) for n in range(1, total + 1)), bundles=(bundle(1, snapshot=total),)
    )
    begin = time.process_time()
    found = trace(build_graph(facts), [bundle_node("price", digest(1))], back=True, forward=True)
    assert time.process_time() - begin < 3  # a walk from each file takes much longer
    target = version_node("dev", "visits", str(total))
    files = [node for node in found.edges if node.kind == "file"]
    assert len(files) == total
    assert all(found.edges[node] == {target} for node in files)


@given(st.integers(0, 2**32 - 1), st.integers(1, 14))
def test_a_part_leads_from_each_kept_node_to_the_next_ones(seed: int, size: int) -> None:
    rng = random.Random(seed)
    graph = LineageGraph()
    nodes = [graph.add(version_node("dev", "visits", f"{n:02d}")) for n in range(size)]
    for source, target in itertools.combinations(nodes, 2):
        if rng.random() < 0.3:
            graph.connect(source, target)
    kept = {node for node in nodes if rng.random() < 0.5}

    def next_kept(node: LineageNode) -> set[LineageNode]:
        return {each for target in graph.edges[node] for each in ({target} if target in kept else next_kept(target))}

    assert graph.part(kept).edges == {node: next_kept(node) for node in kept}


def test_the_commands_answer_offline_from_the_last_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Pulumi.yaml").write_text((PROJECT / "Pulumi.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    missing = runner.invoke(lineage, ["bundle", "price", "--offline"])
    assert "there is no copy of the lineage" in str(missing.exception)
    save_facts(tmp_path, KNOWN)
    assert read_saved_facts(tmp_path) == KNOWN
    done = runner.invoke(lineage, ["bundle", "price", "--env", "staging", "--offline"])
    assert done.exit_code == 0 and "dev/visits/3.csv" in done.output and "as of 2026-11-30 00:00 UTC" in done.output
    found = json.loads(runner.invoke(lineage, ["contract", "visits", "--offline", "--format", "json"]).output)
    assert {"kind": "release", "name": "prod/price", "note": "live: sha256:000000000000…"} in found["nodes"]
    for arguments in (["file", "visits", "1.csv"], ["column", "visits", "age"], ["contract", "visits", "1.1.0"]):
        path = tmp_path / "out.svg"
        done = runner.invoke(lineage, [*arguments, "--offline", "--format", "svg", "--output", str(path)])
        assert done.exit_code == 0 and path.read_text().startswith("<svg"), done.output
    (tmp_path / COPY).write_text("{}")
    assert "is not a copy of the lineage" in str(runner.invoke(lineage, ["bundle", "price", "--offline"]).exception)


def test_an_offline_question_loads_no_client_of_aws_and_no_other_declarations(tmp_path: Path) -> None:
    """They take twice as long to import as the question takes to answer."""
    (tmp_path / "Pulumi.yaml").write_text((PROJECT / "Pulumi.yaml").read_text())
    save_facts(tmp_path, KNOWN)
    code = (
        "import sys; from pipelines.cli.main import main; main(sys.argv[1:]); "
        "print('loaded:', sorted({'boto3', 'pyiceberg', 'pyarrow', 'numpy', 'pipelines.declarations.contract', "
        "'pipelines.declarations.project'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "lineage", "file", "visits", "1.csv", "--offline"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "dev/visits/1.csv" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_answers_in_json_are_ascii_and_indented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Pulumi.yaml").write_text((PROJECT / "Pulumi.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    name = 'année "1" 😀\n.csv'
    save_facts(tmp_path, facts(version(1, file=name), bundle(1, snapshot=1)))
    arguments = ["file", "visits", name, "--offline", "--format", "json"]
    answer = CliRunner().invoke(lineage, arguments).output
    assert "ann\\u00e9e" in answer
    assert answer == json.dumps(json.loads(answer), indent=2) + "\n"


def test_a_prediction_leads_back_to_its_input_its_bundle_and_their_files() -> None:
    known = facts(
        *(version(1), version(2), bundle(1, snapshot=1)),
        prediction(1, 1, environment="dev", dataset="visits", read="2"),
        prediction(2, 1, file="customers.parquet"),
    )
    graph = build_graph(known)
    of_version = trace(graph, [find_prediction(known, "price", "dev")], back=True, forward=False)
    assert {str(node) for node in of_version.edges} >= {
        "prediction dev/price@1001",
        "input dev/visits@2",
        "version dev/visits@2",
        "file dev/visits/2.csv",
        f"bundle price@{digest(1)}",
        "version dev/visits@1",
        "file dev/visits/1.csv",
    }
    of_file = trace(graph, [find_prediction(known, "price", "prod", "1002")], back=True, forward=False)
    assert "input prod/price/customers.parquet" in {str(node) for node in of_file.edges}
    assert "input dev/visits@2" not in {str(node) for node in of_file.edges}
    with pytest.raises(MlopsError, match="no such batch prediction in staging"):
        find_prediction(known, "price", "staging")


def test_a_landing_file_reaches_the_predictions_of_its_rows_and_of_its_bundles() -> None:
    known = facts(
        version(1), version(2), bundle(1, snapshot=1), prediction(1, 1, environment="dev", dataset="visits", read="2")
    )
    graph = build_graph(known)
    reached = trace(graph, find_nodes(graph, "file", ends="/visits/2.csv"), back=False, forward=True)
    assert prediction_node("dev", "price", "1001") in reached.edges


def test_every_edge_of_a_drawn_prediction_leads_to_the_next_layer() -> None:
    known = facts(version(1), bundle(1, snapshot=1), prediction(1, 1, environment="dev", dataset="visits", read="1"))
    layers = {kind: place for place, layer in enumerate(LAYERS) for kind in layer}
    graph = build_graph(known)
    for source, targets in graph.edges.items():
        for target in targets:
            assert source.kind == target.kind or layers[target.kind] == layers[source.kind] + 1, (source, target)
    assert "Batch predictions" in draw_graph(graph, "all")
