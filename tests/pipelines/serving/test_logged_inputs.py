"""The inference log holds no value of a personal column, and of a sample only the chosen requests."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pipelines.declarations.bundle import RequestColumn
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.inference_logging import LogPolicy, is_sampled
from pipelines.serving.request_counts import count_of
from pipelines.serving.server_settings import ServerSettings
from tests.pipelines.serving.bundles import (
    COLUMNS,
    DIGEST,
    NAME,
    ROW,
    failing_bundle,
    linear_bundle,
    mixed_bundle,
    with_file,
)
from tests.pipelines.serving.conftest import Serve, features, mixture, row

MARK = 59.0625
"""Value of the personal column `age` that nothing else has."""


def written(served: Any) -> bytes:
    """Return everything that a server wrote."""
    served.log.close()
    return b"".join(content + key.encode() for key, content in served.written.items())


@pytest.mark.parametrize("rows", [1, 2])
def test_values_of_withheld_columns_are_null_and_the_record_names_them(serve: Serve, rows: int) -> None:
    server = serve(policy=LogPolicy(withheld=("age", "email", "sex")))
    asked = features(*[row(age=MARK)] * rows)
    assert server.infer(asked).status == 200
    assert b"59.06" not in written(server)
    (record,) = server.logged()
    assert record["withheld"] == ["age", "sex"]
    assert record["inputs"] == {"features": [[None, None, *ROW[2:]]] * rows}
    assert "groups" not in record
    assert len(record["outputs"]["variable"]) == rows


def test_what_was_personal_when_the_bundle_was_trained_stays_withheld(serve: Serve) -> None:
    age = COLUMNS[0].model_copy(update={"personal": True})
    server = serve(linear_bundle(columns=(age, *COLUMNS[1:])))
    server.infer(features(row(age=MARK)))
    assert b"59.06" not in written(server)
    assert server.logged()[0]["inputs"]["features"] == [[None, *ROW[1:]]]


def test_the_group_of_a_row_is_logged_only_if_the_contract_lists_its_values(serve: Serve) -> None:
    server = serve(policy=LogPolicy(withheld=("age", "sex"), groups=("age", "sex")))
    server.infer(features(row(sex=1), row(sex=2.0000000001)))
    server.infer(features(row(sex=2)))
    two, one = server.logged()
    assert two["groups"] == {"sex": ["1", "2"]}
    assert one["groups"] == {"sex": ["2"]}
    assert one["inputs"]["features"] == [[None, None, *ROW[2:]]]


def test_a_tensor_without_other_columns_is_left_out(serve: Serve) -> None:
    server = serve(mixed_bundle(), policy=LogPolicy(withheld=("town", "flag"), groups=("town",)))
    columns = {each.name: each.columns[0].name for each in server.predictor.schema.inputs}
    assert {columns["town"], columns["flag"]} == {"town", "flag"}
    server.infer(mixture())
    server.infer(mixture(town=[None]))
    first, second = server.logged()
    assert first["inputs"] == {"wide": [[1, 4]], "small": [[3]], "large": [[7]]}
    assert (first["groups"], second["groups"]) == ({"town": ["Ulm"]}, {"town": ["null"]})
    assert first["outputs"]["quotient"] == [[0.25]]


def test_an_unexpected_error_is_logged_without_the_values_that_it_quotes(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError(f"could not convert {MARK}")

    for policy, quotes in ((LogPolicy(withheld=("age",)), False), (LogPolicy(), True)):
        server = serve(policy=policy)
        monkeypatch.setattr(server.predictor._model, "run_row", fail)
        caplog.clear()
        assert server.infer(features(row(age=MARK))).status == 500
        assert "ValueError" in caplog.text
        assert "in fail" in caplog.text
        assert (str(MARK) in caplog.text) is quotes


def test_an_error_of_the_model_is_logged_without_the_value_that_onnxruntime_quotes(
    serve: Serve, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    server = serve(failing_bundle(), policy=LogPolicy(withheld=("code",)))
    tensor = {"name": "code", "datatype": "INT64", "shape": [1, 1], "data": [77_665_544]}
    assert server.infer({"inputs": [tensor]}).status == 500
    assert "unexpected error: RuntimeError" in caplog.text
    assert "77665544" not in caplog.text + "".join(capfd.readouterr())


def test_a_sample_is_chosen_by_the_id_and_everything_else_is_counted(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"request-{number}" for number in range(40)]
    server = serve(policy=LogPolicy(sample=0.25))
    for name in names:
        server.infer(features() | {"id": name})
    monkeypatch.setattr(server.predictor._model, "run_row", lambda: 1 / 0)
    assert server.infer(features() | {"id": names[0]}).status == 500
    records = server.logged()
    chosen = [name for name in names if is_sampled(json.dumps(name).encode(), 0.25, server.predictor.sampling_key)]
    assert 0 < len(chosen) < len(names)
    assert [record.get("id") for record in records] == [*chosen, None]
    assert [record.get("sample") for record in records] == [*[0.25] * len(chosen), None]
    counts = [found for key in server.written if (found := count_of(key))]
    assert [(each.requests, each.errors) for each in counts] == [(41, 1)]


def test_a_server_whose_sample_is_empty_writes_counts_only(serve: Serve) -> None:
    server = serve(policy=LogPolicy(sample=1e-12))
    server.infer(features())
    assert server.logged() == []
    assert [found.requests for key in server.written if (found := count_of(key))] == [1]


def test_the_share_of_a_sample_is_that_of_the_ids() -> None:
    ids = [b'"%d"' % number for number in range(20_000)]
    for sample in (0.01, 0.1, 0.5):
        share = sum(is_sampled(each, sample, b"") for each in ids) / len(ids)
        assert abs(share - sample) < 4 * (sample / len(ids)) ** 0.5
    assert all(is_sampled(each, 1.0, b"") for each in ids[:1000])


def test_a_caller_cannot_choose_what_is_sampled_by_the_answers(serve: Serve) -> None:
    """The digest of a bundle is in every answer. Only the registry has the digests of its files."""
    server, other = serve(), serve(with_file(linear_bundle(), "evaluation.json", b"[]"))
    keys = [each.predictor.sampling_key for each in (server, other)]
    ids = [b'"%d"' % number for number in range(2000)]
    chosen = [{each for each in ids if is_sampled(each, 0.1, key)} for key in keys]
    assert all(100 < len(each) < 300 for each in chosen)
    assert len(chosen[0] & chosen[1]) < 60, "the ids of one bundle's sample say nothing about another's"
    said = server.infer(features()).body + server.get(f"/v2/models/{NAME}").body
    assert keys[0].hex().encode() not in said and keys[0] != bytes.fromhex(server.bundle.digest[7:])


def test_a_release_of_the_server_keeps_the_sample_of_the_one_before() -> None:
    """Monitors ask for each id whether its record should be there."""
    assert {number for number in range(12) if is_sampled(b'"%d"' % number, 0.25, b"")} == {0, 1, 11, 8}


def test_lost_records_are_written_with_the_next_count(serve: Serve) -> None:
    server = serve()
    server.log._buffer_bytes = -1
    server.log._notice()
    for _ in range(3):
        server.infer(features())
    assert server.logged() == []
    ((key, content),) = server.written.items()
    assert count_of(key).requests == 0  # type: ignore[union-attr]
    assert json.loads(content)["lost"] == 3


def test_a_policy_comes_from_the_environment_of_the_pod() -> None:
    policy = LogPolicy(sample=0.5, withheld=("age", "sex"), groups=("sex",))
    read = ServerSettings.from_environ("m", DIGEST, {"LOG_POLICY": policy.model_dump_json()})
    assert read.log_policy == policy
    assert ServerSettings.from_environ("m", DIGEST, {}).log_policy == LogPolicy()
    for wrong in ("{", "[]", '{"sample": 0}', '{"sample": NaN}', '{"withheld": "age"}', '{"keep": 1}'):
        with pytest.raises(MlopsError, match="LOG_POLICY: expected a policy"):
            ServerSettings.from_environ("m", DIGEST, {"LOG_POLICY": wrong})


def test_the_schema_of_a_bundle_without_personal_columns_is_as_before() -> None:
    plain = RequestColumn(name="age")
    assert "personal" not in plain.model_dump(mode="json")
    assert replace(linear_bundle()).files["schema.json"].count(b"personal") == 0
    assert plain.model_copy(update={"personal": True}).model_dump(mode="json")["personal"] is True
