from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data.contract_advice import advise
from pipelines.data.contract_check import check_data_file
from pipelines.data.contract_draft import draft_contract
from pipelines.data.contract_page import contract_lines, owner_of
from pipelines.declarations.contract import Contract
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from tests.pipelines.data.contracts import column, contract
from tests.sample_project import PROJECT


def draft(path: Path) -> Contract:
    return parse(draft_contract(path, "visits"), Contract, path)


def test_a_file_keeps_the_draft_that_was_inferred_from_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"{n},{n % 50}.5,{'ab'[n % 2]},2026-01-{n % 28 + 1:02},true,x{n}@y.org" for n in range(60)]
    path.write_text("\n".join(["number,size,kind,day,open,email", *rows, "60,,a,2026-01-01,false,z@y.org"]) + "\n")
    found = draft(path)
    assert check_data_file(found, path).keeps
    kinds = {name: (each.logical_type, each.required) for name, each in found.columns.items()}
    assert kinds == {
        "number": ("integer", True),
        "size": ("number", False),
        "kind": ("string", True),
        "day": ("date", True),
        "open": ("boolean", True),
        "email": ("string", True),
    }
    assert found.primary_key == ("number",)
    assert found.columns["kind"].valid_values == ("a", "b")
    assert found.columns["email"].classification == "restricted"
    assert (found.status, found.version) == ("draft", "0.1.0")
    assert any(line.startswith("size: description") for line in advise(found))


@pytest.mark.parametrize(
    ("status", "advised"),
    [
        ("draft", ["status", "slaProperties"]),
        ("proposed", ["status", "slaProperties"]),
        ("active", ["slaProperties"]),
        ("deprecated", []),
    ],
)
def test_a_contract_in_use_is_advised_to_bind_and_to_say_when_data_comes(status: str, advised: list[str]) -> None:
    lines = advise(contract(column("age", "integer"), status=status))
    assert [line.partition(":")[0] for line in lines if line.startswith(("status:", "slaProperties:"))] == advised


@pytest.mark.parametrize(
    ("left", "kind", "levels"),
    [
        (["yes", "no"], "string", ("no", "yes")),
        (["Y", "N"], "string", ("N", "Y")),
        (["t", "f"], "string", ("f", "t")),
        (["TRUE", "False"], "boolean", ()),
        (["31.12.2026", "01.02.2026"], "string", ()),
        (["12/31/2026", "2/1/2026"], "string", ()),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_values_that_ingestion_would_not_read_as_a_type_are_drafted_as_text(
    tmp_path: Path, suffix: str, left: list[str], kind: str, levels: tuple[str, ...]
) -> None:
    path = tmp_path / f"a{suffix}"
    rows = [(f"c{n}", left[n % 2]) for n in range(60)]
    if suffix == ".csv":
        path.write_text("id,left\n" + "".join(f"{key},{value}\n" for key, value in rows))
    else:
        path.write_text("".join(f'{{"id": "{key}", "left": "{value}"}}\n' for key, value in rows))
    found = draft(path)
    assert check_data_file(found, path).keeps
    if suffix == ".csv" or kind == "string":
        assert (found.columns["left"].logical_type, found.columns["left"].valid_values or ()) == (kind, levels)


@pytest.mark.parametrize(("values", "listed"), [((0, 1), (0, 1)), ((1, 2), None), ((0, 1, 2), None), ((1,), None)])
def test_integers_that_are_flags_have_their_values_listed(
    tmp_path: Path, values: tuple[int, ...], listed: tuple[int, ...] | None
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,late\n" + "".join(f"c{n},{values[n % len(values)]}\n" for n in range(90)))
    found = draft(path)
    assert found.columns["late"].valid_values == listed
    assert check_data_file(found, path).keeps
    advised = any(line.startswith("late: logicalTypeOptions") for line in advise(found))
    assert advised is (listed is None)


@pytest.mark.parametrize(
    ("name", "values", "is_listed"),
    [
        ("state", {"open": 500, "closed": 100}, True),
        ("state", {"open": 500, "never opened": 100, "C-1": 30}, True),
        ("state", {"?": 500, "<=50K": 100}, True),
        ("state", {"open": 600}, False),  # says nothing about the next value
        ("state", {"open": 596, "closed": 4}, False),  # one that is rare: there are others
        ("answer", {"Called twice, no answer": 300, "ok": 300}, False),
        ("answer", {"is to call back on Monday": 300, "ok": 300}, False),
        ("answer", {"a" * 33: 300, "ok": 300}, False),
        ("answer", {" ": 300, "ok": 300}, False),
        ("day", {"2026-12-31 10:00 Uhr": 300, "2026-01-01 11:00 Uhr": 300}, False),
        ("driver_comment", {"ok": 300, "late": 300}, False),
    ],
)
def test_only_text_that_looks_like_codes_has_its_values_listed(
    tmp_path: Path, name: str, values: dict[str, int], is_listed: bool
) -> None:
    path = tmp_path / "a.csv"
    lines = [value for value, count in values.items() for _ in range(count)]
    path.write_text(f"id,{name}\n" + "".join(f'c{n},"{value}"\n' for n, value in enumerate(lines)))
    assert draft(path).columns[name].valid_values == (tuple(sorted(values)) if is_listed else None)


def test_the_types_of_parquet_and_json_files_are_kept(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.int32()),
            "x": pa.array([1.0, None], pa.float32()),
            "when": pa.array([0, 1], pa.timestamp("us")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = draft(tmp_path / "a.parquet")
    assert [each.stored_as for each in found.columns.values()] == ["int", "float", "timestamp"]
    assert check_data_file(found, tmp_path / "a.parquet").keeps
    (tmp_path / "b.jsonl").write_text('{"id": 1, "name": "a"}\n{"id": 2, "name": null}\n')
    assert check_data_file(draft(tmp_path / "b.jsonl"), tmp_path / "b.jsonl").keeps


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv", "id\n", "has no rows"),
        ("a.csv", "Id;x\n1;2\n", "has columns that a contract cannot name"),
        ("a.txt", "id\n1\n", "expected a name that ends in"),
        ("a.parquet", "not parquet", "cannot be read"),
        ("a.jsonl", '{"id": 1, "tags": ["a"]}\n', "has a column that a contract cannot hold"),
    ],
)
def test_a_file_without_a_table_is_refused(tmp_path: Path, name: str, content: str, match: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(MlopsError, match=match):
        draft_contract(tmp_path / name, "visits")


def test_a_contract_is_shown_with_its_rules() -> None:
    project = Project(PROJECT)
    lines = contract_lines(project.contract(project.dataset_names[0]))
    assert any("maximum: at most 120" in line for line in lines)
    assert any("rowCount: mustBeGreaterThan 0 rows" in line for line in lines)
    assert any("protected (not shown in samples)" in line for line in lines)


@pytest.mark.parametrize(
    ("team", "owner"),
    [
        ({"name": "data", "members": [{"username": "ann"}]}, "data"),
        ({"members": [{"username": "ann"}, {"name": "Bob", "username": "b"}]}, "ann, Bob"),
        ([{"username": "ann"}], "ann"),
        (None, ""),
        (7, ""),
    ],
)
def test_the_owner_is_the_team_or_its_members(team: object, owner: str) -> None:
    declared = contract(column("age", "integer"), team=team)
    assert owner_of(declared) == owner
    assert any(line.startswith("team:") for line in advise(declared)) == (not team)
