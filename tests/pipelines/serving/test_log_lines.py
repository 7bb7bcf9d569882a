"""Lines that are made in bulk say what each record says alone."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.declarations.inference_logging import LogPolicy
from pipelines.serving.log_lines import LogLines
from pipelines.serving.logged_inputs import LoggedInputs
from pipelines.serving.predictor import Predictor
from tests.pipelines.serving.bundles import MadeBundle, linear_bundle, mixed_bundle
from tests.pipelines.serving.conftest import features, mixture, row

TRACE = b"0af7651916cd43dd8448eb211c80319c"
NOON = 1_767_268_800.0


def linear_requests(chance: random.Random) -> dict[str, Any]:
    """Return a request of one row or several, some of them with an empty cell."""
    count = chance.choice((1, 1, 1, 2, 3))
    return features(*(row(sex=chance.choice((1, 2)), bp=chance.choice((101.0, None))) for _ in range(count)))


def mixed_requests(chance: random.Random) -> dict[str, Any]:
    """Return a request of one row of every datatype."""
    return mixture(town=[chance.choice(("Ulm", "Bonn", None))], flag=[chance.random() < 0.5])


CASES = {
    "linear": (linear_bundle, linear_requests, LogPolicy(sample=0.5)),
    "withheld": (linear_bundle, linear_requests, LogPolicy(withheld=("age", "s6"))),
    "groups": (linear_bundle, linear_requests, LogPolicy(withheld=("sex",), groups=("sex",))),
    "mixed": (mixed_bundle, mixed_requests, LogPolicy()),
    "mixed and withheld": (mixed_bundle, mixed_requests, LogPolicy(withheld=("town", "b"), groups=("town",))),
}


@pytest.mark.parametrize("case", CASES)
def test_lines_of_many_records_are_those_of_each_record(case: str) -> None:
    make_bundle, make_request, policy = CASES[case]
    bundle: MadeBundle = make_bundle()
    predictor = Predictor(bundle.manifest, bundle.files)
    lines = LogLines(predictor, LoggedInputs(predictor.schema, policy), policy.sample)
    chance = random.Random(7)
    records: list[Any] = []
    expected: list[dict[str, Any]] = []
    for number in range(60):
        moment = NOON + number / 16
        written = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        about = {"time": written, "model": predictor.name, "bundle": predictor.digest}
        if chance.random() < 0.2:
            records += (moment, TRACE, b"503", 0, 500, *lines.no_values)
            expected.append(about | {"trace": TRACE.decode(), "rows": 0, "status": 503})
            continue
        request = make_request(chance) | {"id": f"id\n{number}"}
        body = json.dumps(request, indent=chance.choice((None, 1))).encode()
        answer = predictor.answer(body, b"0")
        records += (moment, TRACE, answer.id, answer.rows, answer.size, *answer.values)
        alone = json.loads(lines.make(records[-lines.fields :]))
        assert alone["rows"] == answer.rows
        expected.append(about | {"id": f"id\n{number}", "trace": TRACE.decode(), "inputs": alone["inputs"]})
        if policy.withheld == ():
            found = {tensor["name"]: tensor["data"] for tensor in request["inputs"]}
            flat = {name: [cell for line in lines_ for cell in line] for name, lines_ in alone["inputs"].items()}
            assert flat == found
    made = lines.make(records)
    assert made.endswith(b"}\n")
    assert b"\r" not in made
    found_lines = [json.loads(line) for line in made.splitlines()]
    assert len(found_lines) == 60
    for line, wanted in zip(found_lines, expected, strict=True):
        assert {key: line[key] for key in wanted} == wanted
        assert line.get("withheld", []) == (list(lines._logged.withheld) if line["rows"] else [])
        if line["rows"] and lines._logged.groups:
            assert [len(groups) for groups in line["groups"].values()] == [line["rows"]]
