"""People of the census survey who ask for predictions, and what becomes known about them later."""

from __future__ import annotations

import csv
import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

Person = dict[str, Any]

_SEED = 2018
_LOGGED_WITHIN = 120.0
_LOOK_SECONDS = 0.5
_QUIET_SECONDS = 6.0


def write_years(samples: Path, folder: Path) -> dict[str, Path]:
    """Write the landing files of the survey into a folder, and return them by name.

    `miscoded` has the years 2016 and 2017 with a mistake that keeps the contract: everybody who moved within the
    country, or lives with a partner or housemates, is coded as without a job. Its people have other numbers.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    source = {"2015": "census-employment.parquet"} | {
        year: f"census-employment-{year}.parquet" for year in ("2016", "2017")
    }
    tables = {year: pq.read_table(samples / name) for year, name in source.items()}
    bad = pa.concat_tables([tables["2016"], tables["2017"]])
    lost = pc.or_(
        pc.equal(bad["moved"], "within-us"),
        pc.is_in(bad["relationship"], value_set=pa.array(["unmarried-partner", "housemate"])),
    )
    for name, values in (
        ("employed", pc.and_(bad["employed"], pc.invert(lost))),
        ("person_id", pa.array(np.asarray(bad["person_id"]) + 1_000_000)),
    ):
        bad = bad.set_column(bad.column_names.index(name), bad.schema.field(name), values)
    tables["miscoded"] = bad
    written = {}
    for name, table in tables.items():
        written[name] = folder / f"{name}.parquet"
        pq.write_table(table, written[name])
    return written


def from_abroad(person: Person) -> Person:
    """Return a person as a faulty client sends her: every woman is said to have lived abroad a year before."""
    return {**person, "moved": "from-abroad"} if person["sex"] == "female" else person


def await_quiet_log(descriptor: EnvironmentDescriptor, model: str) -> None:
    """Wait until servers have written what they hold of a model's inference log: they write every two seconds."""
    from pipelines.data.glue_client import s3
    from pipelines.registry import store

    client, before, since = s3(descriptor), -1, time.monotonic()
    while time.monotonic() - since < _QUIET_SECONDS:
        time.sleep(_LOOK_SECONDS)
        listed = store.listing(descriptor.logs_bucket, f"inference/{model}/", client=client)
        if (found := sum(1 for _ in listed)) != before:
            before, since = found, time.monotonic()


class People:
    """People of a year of the survey, each of whom asks once, in a random order that is always the same.

    Args:
        file: landing file with their answers.
        project: the project.
        model: name of the model that they ask.
    """

    def __init__(self, file: Path, project: Project, model: str) -> None:
        import pyarrow.parquet as pq

        from pipelines.training.rows import text_features

        declared = project.model(model)
        self._model = model
        self._target = declared.target
        self._text = text_features(declared, project.contract(declared.contract))
        self._numeric = [name for name in declared.features if name not in self._text]
        self._waiting = pq.read_table(file).to_pylist()
        random.Random(_SEED).shuffle(self._waiting)  # noqa: S311 - the file is ordered by household
        self._asked: dict[str, list[Person]] = {}

    def ask(
        self, descriptor: EnvironmentDescriptor, day: str, number: int, change: Callable[[Person], Person] | None = None
    ) -> int:
        """Send a request about each of the next people, and wait until all are in the inference log.

        Args:
            descriptor: the environment.
            day: start of the ids of the requests.
            number: how many people ask.
            change: how the client changes their answers.

        Returns:
            how many asked.

        Raises:
            MlopsError: the endpoint answers with an error, or the requests do not reach the log.
        """
        from pipelines.serving.probe import open_endpoint

        asked, self._waiting = self._waiting[:number], self._waiting[number:]
        self._asked[day] = asked
        with open_endpoint(descriptor, self._model) as endpoint:
            for person in asked:
                endpoint.infer(self._request(f"{day}-{person['person_id']}", change(person) if change else person))
        self._await_log(descriptor, day, len(asked))
        return len(asked)

    def write_labels(self, day: str, file: Path) -> Path:
        """Write what became known about the people who asked on a day as a landing file, and return it."""
        known = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        with file.open("w", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerow(["id", "employed", "age_group", "known_at"])
            for person in self._asked[day]:
                truth = "true" if person[self._target] else "false"
                writer.writerow([f"{day}-{person['person_id']}", truth, person["age_group"], known])
        return file

    def _request(self, id_: str, person: Person) -> dict[str, Any]:
        numbers = [float(person[name]) for name in self._numeric]
        tensors = [{"name": "features", "shape": [1, len(numbers)], "datatype": "FP32", "data": numbers}]
        tensors += [{"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [person[name]]} for name in self._text]
        return {"id": id_, "inputs": tensors}

    def _await_log(self, descriptor: EnvironmentDescriptor, day: str, number: int) -> None:
        from pipelines.data.glue_client import s3
        from pipelines.registry import store

        client, counted = s3(descriptor), dict[str, int]()
        deadline = time.monotonic() + _LOGGED_WITHIN
        start = f"{day}-"
        while sum(counted.values()) < number:
            if time.monotonic() > deadline:
                found = sum(counted.values())
                raise MlopsError(f"requests in the inference log: expected {number}, found {found}")
            time.sleep(_LOOK_SECONDS)
            prefix = f"inference/{self._model}/{datetime.now(UTC):%Y/%m/%d}/"
            for listed in store.listing(descriptor.logs_bucket, prefix, client=client):
                if listed.key not in counted:
                    content = store.get(descriptor.logs_bucket, listed.key, limit=1 << 28, client=client).content
                    ids = (str(json.loads(line)["id"]) for line in content.splitlines())
                    counted[listed.key] = sum(id_.startswith(start) for id_ in ids)
