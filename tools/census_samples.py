"""Make the sample files of `census-employment` from the public use microdata.

Usage:

    python -m tools.census_samples ma_25_54.parquet

`data-contracts/samples/README.md` says where the file comes from, and what is changed.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SAMPLES = Path(__file__).parents[1] / "data-contracts" / "samples"
DATASET = "census-employment"
FIRST_YEAR = 2015
YEARS = range(FIRST_YEAR, 2019)

SEED = 20150101
"""Seed of the days on which people are said to have answered. Only their year is known."""

EDUCATION = {
    "1": "none",
    "2": "preschool",
    "3": "kindergarten",
    **{str(grade + 3): f"grade-{grade}" for grade in range(1, 12)},
    "15": "grade-12-no-diploma",
    "16": "high-school-diploma",
    "17": "high-school-equivalent",
    "18": "college-under-1-year",
    "19": "college-no-degree",
    "20": "associate",
    "21": "bachelor",
    "22": "master",
    "23": "professional",
    "24": "doctorate",
}
"""SCHL, educational attainment."""

MARITAL_STATUS = {"1": "married", "2": "widowed", "3": "divorced", "4": "separated", "5": "never-married"}
"""MAR."""

RELATIONSHIP = {
    "0": "householder",
    "1": "spouse",
    "2": "child",
    "3": "adopted-child",
    "4": "stepchild",
    "5": "sibling",
    "6": "parent",
    "7": "grandchild",
    "8": "parent-in-law",
    "9": "child-in-law",
    "10": "other-relative",
    "11": "roomer",
    "12": "housemate",
    "13": "unmarried-partner",
    "14": "foster-child",
    "15": "other-nonrelative",
    "16": "institution",
    "17": "other-group-quarters",
}
"""RELP, relationship to the householder."""

CITIZENSHIP = {
    "1": "born-in-us",
    "2": "born-in-us-territory",
    "3": "born-abroad-to-us-parents",
    "4": "naturalized",
    "5": "not-a-citizen",
}
"""CIT."""

MOVED = {"1": "same-house", "2": "from-abroad", "3": "within-us"}
"""MIG, where the person lived a year before."""

MILITARY = {"1": "active-duty", "2": "formerly-active", "3": "training-only", "4": "never"}
"""MIL, military service."""

SEX = {"1": "male", "2": "female"}

RACE = {"1": "white", "2": "black", "6": "asian", "9": "two-or-more"}
"""RAC1P. Groups that are too small for a figure of their own are `another`: 3, 4 and 5 (American Indian and Alaska
Native), 7 (Pacific Islander) and 8 (some other race)."""

DIFFICULTIES = {"disability": "DIS", "hearing_difficulty": "DEAR", "vision_difficulty": "DEYE"}
"""Column → code; 1 is yes, 2 is no. `DREM` makes `cognitive_difficulty`."""


def read_people(source: Path) -> pd.DataFrame:
    """Read the microdata with names instead of codes, by person.

    Args:
        source: the file of the package NannyML, with a column for each code and one for the year.
    """
    raw = pd.read_parquet(source).sort_values("id", ignore_index=True)

    def named(code: str, names: dict[str, str]) -> pd.Series:
        return raw[code].astype(str).map(names)

    age = raw["AGEP"].astype("int32")
    people = pd.DataFrame(
        {
            "person_id": raw["id"].astype("int64"),
            "answered_on": _days(raw["year"].to_numpy()),
            "age": age,
            "age_group": pd.cut(age, [24, 34, 44, 54], labels=["25-34", "35-44", "45-54"]).astype(str),
            "sex": named("SEX", SEX),
            "race": named("RAC1P", RACE).fillna("another"),
            "education": named("SCHL", EDUCATION),
            "marital_status": named("MAR", MARITAL_STATUS),
            "relationship": named("RELP", RELATIONSHIP),
            "citizenship": named("CIT", CITIZENSHIP),
            "moved": named("MIG", MOVED),
            "military_service": named("MIL", MILITARY),
            **{name: raw[code].astype(str) == "1" for name, code in DIFFICULTIES.items()},
            "cognitive_difficulty": raw["DREM"].astype(str) == "1",
            "employed": raw["employed"] == 1,
        }
    )
    assert not people.isna().to_numpy().any(), "a code has no name"
    return people


def _days(years: np.ndarray) -> list[object]:
    """Draw a day of each year; the first year of everybody is given."""
    starts = years.astype("int64").astype(str).astype("datetime64[Y]").astype("datetime64[D]")
    lengths = ((starts.astype("datetime64[Y]") + 1).astype("datetime64[D]") - starts).astype(int)
    drawn = np.random.default_rng(SEED).random(len(years))
    return list((starts + (drawn * lengths).astype(int)).astype(object))


def write(people: pd.DataFrame, path: Path) -> None:
    """Write people as a Parquet file with plain types, as small as it can be."""
    table = pa.Table.from_pandas(people, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, path, compression="zstd", compression_level=19, write_statistics=False)


@click.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", default=SAMPLES, type=click.Path(file_okay=False, path_type=Path), help="Where to write.")
def main(source: Path, output: Path) -> None:
    """Write one file for each year of the survey."""
    people = read_people(source)
    year = pd.DatetimeIndex(people["answered_on"]).year
    for each in YEARS:
        path = output / (f"{DATASET}.parquet" if each == FIRST_YEAR else f"{DATASET}-{each}.parquet")
        write(people[year == each], path)
        click.echo(f"wrote {path}: {(year == each).sum()} people, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
