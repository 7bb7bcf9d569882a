"""Inputs of `mlops demo --operate`."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from laptop.demo.material import CENSUS, keep_first_environment, own_clone
from laptop.demo.survey_people import from_abroad, write_years
from pipelines.data.local_rows import read_good_rows
from pipelines.declarations.project import Project
from tests.sample_project import ROOT

pytestmark = pytest.mark.slow

PROJECT = Project(ROOT)
SAMPLES = PROJECT.contracts_folder / "samples"


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    contract, read = PROJECT.contract(CENSUS.dataset), {}
    for name, file in write_years(SAMPLES, tmp_path_factory.mktemp("years")).items():
        read[name], bad = read_good_rows(contract, file)
        assert bad == 0
    return read


def test_the_miscoded_years_keep_the_contract_and_hide_who_has_a_job(years: dict[str, pa.Table]) -> None:
    right = pa.concat_tables([years["2016"], years["2017"]]).sort_by("person_id")
    wrong = years["miscoded"].sort_by("person_id")
    assert wrong.num_rows == right.num_rows
    assert wrong.drop_columns(["person_id", "employed"]) == right.drop_columns(["person_id", "employed"])
    lost = pc.and_(right["employed"], pc.invert(wrong["employed"]))
    assert 0.1 < pc.mean(pc.cast(lost, pa.float64())).as_py() < 0.25
    assert pc.sum(pc.and_(wrong["employed"], pc.invert(right["employed"]))).as_py() == 0


def test_nobody_of_the_miscoded_years_has_the_number_of_another_person(years: dict[str, pa.Table]) -> None:
    numbers = [set(table.column("person_id").to_pylist()) for table in years.values()]
    assert len(set.union(*numbers)) == sum(map(len, numbers))


def test_the_wrong_form_changes_women_only() -> None:
    woman, man = {"sex": "female", "moved": "same-house"}, {"sex": "male", "moved": "same-house"}
    assert (from_abroad(woman)["moved"], from_abroad(man)) == ("from-abroad", man)
    assert woman["moved"] == "same-house"


def test_a_clone_with_one_environment_is_valid(tmp_path: Path) -> None:
    made = keep_first_environment(own_clone(PROJECT, tmp_path / "clone"))
    (first,) = made.environments
    for model in made.model_names:
        assert [path.stem for path in (made.models_folder / model / "releases").iterdir()] == [first]
    with (SAMPLES / "census-employment-labels.csv").open() as file:
        assert next(csv.reader(file)) == list(made.contract(*CENSUS.others).columns)
