from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli.contracts import contract as command
from pipelines.declarations.contract import Contract
from pipelines.lineage.facts import save_facts
from pipelines.promotion.contract_impact import impact_lines, judge_impact, live_readers
from tests.clones import commit_all
from tests.pipelines.data.contracts import column, contract
from tests.pipelines.lineage.example_facts import bundle, digest, facts, release
from tests.pipelines.promotion.promotion_project import DATASET, MODEL
from tests.sample_project import PROJECT, copy_as_forked

AGE = column("age", "integer", required=True, minimum=0, maximum=120)
LIVE = facts(
    bundle(1, snapshot=1),
    bundle(2, snapshot=2, features=("size",)),
    release(1, 1, is_live=False),
    release(1, 1, environment="staging", is_live=True),
    release(2, 2, ended=1, is_live=True),
    targets={"price": "paid"},
)
READERS = {"price": {"age", "paid"}, "other": {"size"}}
RELEASED: dict[str, tuple[str, ...]] = {"price": ("staging", "prod"), "other": ()}


def judge(old: Contract | None, new: Contract | None) -> list[str]:
    return impact_lines(judge_impact("visits.odcs.yaml", old, new, READERS, RELEASED, LIVE))


def test_lineage_names_the_live_releases_whose_bundle_reads_a_column() -> None:
    found = {
        name: [(each.environment, each.bundle) for each in live_readers(LIVE, "visits", name)]
        for name in ("age", "size", "paid", "nothing")
    }
    assert found == {
        "age": [("staging", digest(1))],
        "size": [("staging", digest(1)), ("prod", digest(2))],
        "paid": [("staging", digest(1)), ("prod", digest(2))],
        "nothing": [],
    }
    assert live_readers(LIVE, "orders", "age") == ()


def test_a_breaking_change_names_its_readers_and_the_version_that_it_requires() -> None:
    wider = contract(column("age", "integer", required=True, minimum=0))
    assert judge(contract(AGE), wider) == [
        "visits.odcs.yaml: 1.0.0 → 1.0.0",
        "  age: maximum was 120, is none (breaks consumers)",
        "      read by price, released to staging and prod",
        f"      live in staging: price {digest(1)}",
        "  requires version 2.0.0 or later (major): not announced, refused; set version: 2.0.0",
    ]
    announced = contract(column("age", "integer", required=True, minimum=0), version="2.0.0")
    assert judge(contract(AGE), announced)[-1] == "  requires version 2.0.0 or later (major): announced"


def test_a_change_for_producers_is_named_and_not_refused() -> None:
    stricter = contract(column("age", "integer", required=True, minimum=1, maximum=120))
    assert judge(contract(AGE), stricter)[1:] == [
        "  age: minimum was 0, is 1 (breaks producers)",
        "      read by price, released to staging and prod",
        f"      live in staging: price {digest(1)}",
        "  requires version 1.1.0 or later (minor): not announced; set version: 1.1.0",
    ]


def test_a_new_a_draft_and_a_deleted_contract() -> None:
    assert judge(None, contract(AGE)) == ["visits.odcs.yaml: new, version 1.0.0"]
    draft = contract(AGE, status="draft")
    assert judge(draft, contract(column("age", "integer")))[-1] == (
        "  requires no version: the contract was a draft, which binds nobody"
    )
    gone = judge_impact("visits.odcs.yaml", contract(AGE), None, READERS, RELEASED, LIVE)
    assert impact_lines(gone)[-1] == "  requires the status deprecated first: it is not, refused"
    assert not any("the table cannot" in line for line in impact_lines(gone))
    assert gone.refused and gone.readers["age"] == ("price",) and gone.live["age"]
    assert not judge_impact("x", contract(AGE, status="deprecated"), None, {}, {}, None).refused


@pytest.mark.slow
def test_the_command_compares_the_working_tree_with_a_commit(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_as_forked(clone)
    commit_all(clone, "a project")
    monkeypatch.chdir(clone)
    path = clone / "data-contracts" / f"{DATASET}.odcs.yaml"
    path.write_text(path.read_text().replace("maximum: 80", "maximum: 90"))
    save_facts(clone, LIVE)
    done = CliRunner().invoke(command, ["diff", "HEAD"])
    assert done.exit_code == 1
    assert "bmi: maximum was 80, is 90 (breaks consumers)" in done.output
    assert f"read by {MODEL}, not released" in done.output
    assert "Live releases as of 2026-11-30" in done.output
    (found,) = json.loads(CliRunner().invoke(command, ["diff", "HEAD", "--json"]).output)
    assert (found["required"], found["refused"]) == ("2.0.0", True)
    path.write_text(path.read_text().replace("version: 1.0.0", "version: 2.0.0"))
    assert CliRunner().invoke(command, ["diff", "HEAD"]).exit_code == 0


@pytest.mark.slow
def test_a_draft_is_written_once_and_passes_its_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = copy_as_forked(tmp_path / "project")
    monkeypatch.chdir(root)
    sample = PROJECT / "data-contracts" / "samples" / f"{DATASET}.csv"
    good = tmp_path / "good.csv"
    good.write_text("\n".join(sample.read_text().splitlines()[:300]) + "\n")
    runner = CliRunner()
    done = runner.invoke(command, ["init", str(good), "--name", "patients"])
    assert done.exit_code == 0, done.output
    assert runner.invoke(command, ["test", "patients", str(good)]).exit_code == 0
    again = runner.invoke(command, ["init", str(good), "--name", "patients"])
    assert "exists: expected a new dataset" in str(again.exception)
    assert "not a valid dataset name" in str(runner.invoke(command, ["init", str(good), "--name", "../x"]).exception)
    linted = runner.invoke(command, ["lint", "patients"])
    assert linted.exit_code == 0 and "age: description" in linted.output
    assert "with --strict" in str(runner.invoke(command, ["lint", "--strict"]).exception)
    shown = runner.invoke(command, ["show", "patients"])
    assert "patient_id: integer, stored as long" in shown.output
    report = tmp_path / "report.xml"
    runner.invoke(command, ["test", "patients", str(good), "--format", "junit", "--output", str(report)])
    assert report.read_text().startswith("<?xml")
    assert "expected PATHS or --env" in runner.invoke(command, ["test", "patients"]).output
