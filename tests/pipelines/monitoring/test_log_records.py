"""Lines of the inference log are read whatever a client may send."""

from __future__ import annotations

import json
import math
import random

import msgspec
import pyarrow as pa
import pytest

from pipelines.declarations.bundle import RequestSchema
from pipelines.monitoring.log_records import parse_lines, record_form, with_plain_numbers
from tests.pipelines.serving.bundles import ROW, linear_bundle
from tests.pipelines.serving.conftest import Serve, features, serve

__all__ = ["serve"]

SCHEMA = RequestSchema.model_validate_json(linear_bundle().files["schema.json"])
_floats = msgspec.json.Decoder(list[float]).decode


def numbers(count: int) -> list[bytes]:
    """Return finite numbers in the spellings that JSON allows."""
    rng, found = random.Random(7), list[bytes]()
    while len(found) < count:
        sign = rng.choice(["", "-"])
        whole = rng.choice(["0", "7", "1" + "0" * rng.choice([5, 300, 320])])
        fraction = rng.choice(["", ".0", "." + "0" * rng.choice([5, 330]) + "12"])
        exponent = rng.choice(
            ["", rng.choice("eE") + rng.choice(["", "+", "-"]) + rng.choice(["0", "22", "320", "99999"])]
        )
        text = f"{sign}{whole}{fraction}{exponent}".encode()
        try:
            _floats(b"[%b]" % text)
        except msgspec.DecodeError:
            continue
        found.append(text)
    return found


def test_a_number_that_the_server_reads_is_the_same_number_in_the_log() -> None:
    form = record_form(SCHEMA, whole=True)
    spelled = numbers(1000)
    rows = [b",".join([number] * 10) for number in spelled]
    table = parse_lines(b"".join(b'{"inputs":{"features":[[%b]]}}\n' % row for row in rows), form, only=True)
    read = [row["features"][0][9] for row in table["inputs"].to_pylist()]
    assert read == [_floats(b"[%b]" % number)[0] for number in spelled]
    assert all(map(math.isfinite, read))


def test_one_request_cannot_make_the_others_unreadable(serve: Serve) -> None:
    server = serve()
    for number in (b"0E400", b"1.5"):
        body = json.dumps(features()).encode().replace(json.dumps(ROW[-1]).encode() + b"]", number + b"]")
        assert server.infer(body).status == 200
    server.log.close()
    (lines,) = [content for key, content in server.written.items() if key.endswith(".jsonl")]
    assert b"0E400" in lines, "the server writes what the client sent"
    table = parse_lines(lines, record_form(SCHEMA, whole=True), only=True)
    assert [row["features"][0][9] for row in table["inputs"].to_pylist()] == [0.0, 1.5]


def test_only_lines_with_such_numbers_are_changed_and_those_that_are_not_json_stay() -> None:
    assert with_plain_numbers(b'{"a":0E400}\n{"a": 1.50}\n{"a":1e400\n') == b'{"a":0.0}\n{"a": 1.50}\n{"a":1e400\n'
    with pytest.raises(pa.ArrowInvalid):
        parse_lines(b'{"rows":0E400}\nnot a record\n', record_form(SCHEMA))
