"""Bad requests get the right status and an error that names the problem."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from tests.pipelines.serving.asgi import ask
from tests.pipelines.serving.bundles import NAME, ROW, linear_bundle
from tests.pipelines.serving.conftest import Serve, Served, features, mixture, row


def test_a_body_that_is_not_json_is_refused(linear: Served) -> None:
    answer = linear.infer(b"age=59&sex=2")
    assert answer.status == 400
    assert "the body is not JSON" in answer.error


def test_an_empty_body_is_refused(linear: Served) -> None:
    assert (linear.infer(b"").status, linear.infer(b"").error) == (400, "the body is empty; expected JSON")


def test_json_that_is_cut_off_is_refused(linear: Served) -> None:
    answer = linear.infer(json.dumps(features()).encode()[:-10])
    assert answer.status == 400
    assert "truncated" in answer.error


@pytest.mark.parametrize("body", [b"[]", b"3", b"null", b'"text"'])
def test_json_that_is_not_an_object_is_refused(linear: Served, body: bytes) -> None:
    answer = linear.infer(body)
    assert answer.status == 400
    assert "not an inference request" in answer.error


def test_a_request_without_inputs_is_refused(linear: Served) -> None:
    assert "missing required field `inputs`" in linear.infer({}).error
    assert linear.infer({"inputs": []}).error == "missing input 'features'; the model takes 'features'"


def test_a_client_that_disconnects_before_its_body_is_complete_is_counted(linear: Served) -> None:
    assert linear.infer([json.dumps(features()).encode()[:30], None]).status == 0
    assert linear.infer([None]).status == 0
    assert b'inference_requests_total{code="499"} 2.0' in linear.get("/metrics").body
    assert linear.metrics.in_flight == 0


def test_a_body_that_does_not_arrive_in_time_is_refused(serve: Serve) -> None:
    made = serve(body_seconds=0.01)

    async def never(scope: Any, receive: Any, send: Any) -> None:
        first = True

        async def slow() -> Any:
            nonlocal first
            if not first:
                await asyncio.Event().wait()
            first = False
            return {"type": "http.request", "body": b"{", "more_body": True}

        await made.application(scope, slow, send)

    answer = ask(never, "POST", f"/v2/models/{NAME}/infer")
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert "did not arrive within 0.01 s" in answer.error


def test_a_body_larger_than_the_limit_is_refused_before_it_is_read(serve: Serve) -> None:
    made = serve(largest_body=1000)
    headers = [("content-type", "application/json"), ("content-length", "1001")]
    answer = made.infer([b"x" * 10, b"never read"], headers)
    assert (answer.status, answer.error) == (413, "the body is too large: expected at most 1000 bytes, found 1001")


def test_a_body_over_the_limit_without_a_content_length_is_refused(serve: Serve) -> None:
    made = serve(largest_body=1000)
    assert made.infer([b" " * 600, b" " * 600, b"never read"]).status == 413
    assert made.infer(b" " * 1001).status == 413
    body = json.dumps(features()).encode()
    assert made.infer(body + b" " * (1000 - len(body))).status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/octet-stream",
        "application/json; charset=latin-1",
    ],
)
def test_an_unsupported_content_type_is_refused(linear: Served, content_type: str) -> None:
    answer = linear.infer(features(), [("content-type", content_type)])
    assert answer.status == 415
    assert answer.error == f"content-type: expected application/json, found {content_type}"


def test_a_body_without_a_type_that_a_web_page_sends_is_refused(linear: Served) -> None:
    page = ("origin", "https://elsewhere.example")
    answer = linear.infer(features(), [page])
    assert (answer.status, answer.error) == (415, "content-type: expected application/json from a web page, found none")
    assert linear.infer(features(), [page, ("content-type", "application/json")]).status == 200


def test_a_compressed_body_is_refused(linear: Served) -> None:
    answer = linear.infer(b"\x1f\x8b", [("content-type", "application/json"), ("content-encoding", "gzip")])
    assert (answer.status, answer.error) == (415, "content-encoding: expected none, found gzip")


def test_the_binary_extension_is_refused(linear: Served) -> None:
    headers = [("content-type", "application/octet-stream"), ("inference-header-content-length", "10")]
    assert linear.infer(b"{}", headers).status == 415
    assert linear.infer(b"{}", headers[1:]).status == 415
    as_json = linear.infer(b"{}", [("content-type", "application/json"), *headers[1:]])
    assert (as_json.status, as_json.error[:27]) == (415, "the binary tensor data exte")


def test_an_unknown_input_is_refused_and_the_known_ones_listed(linear: Served) -> None:
    answer = linear.infer(features(name="Features"))
    assert (answer.status, answer.error) == (400, "unknown input \"Features\"; the model takes 'features'")


def test_a_missing_input_is_refused_by_name(mixed: Served) -> None:
    answer = mixed.infer(mixture(flag=None, town=None))
    assert answer.status == 400
    assert answer.error.startswith("missing input 'flag', 'town';")


def test_an_extra_input_is_refused(linear: Served) -> None:
    request = features()
    request["inputs"].append(request["inputs"][0] | {"name": "extra"})
    assert linear.infer(request).error.startswith('unknown input "extra"')


def test_a_repeated_input_is_refused(linear: Served) -> None:
    request = features()
    assert linear.infer({"inputs": request["inputs"] * 2}).error == "input 'features' appears twice"


@pytest.mark.parametrize("datatype", ["FP64", "fp32", "INT64", "BYTES", "", "☃" * 100])
def test_a_wrong_datatype_is_refused(linear: Served, datatype: str) -> None:
    answer = linear.infer(features(datatype=datatype))
    assert answer.status == 400
    assert answer.error.startswith("input 'features': expected datatype 'FP32', found \"")
    assert len(answer.error) < 200


@pytest.mark.parametrize("shape", [[], [10], [1, 9], [10, 1], [0, 10], [-1, 10], [1, 10, 1], [10**30, 9]])
def test_a_shape_that_differs_from_the_models_columns_is_refused(linear: Served, shape: list[int]) -> None:
    answer = linear.infer(features(shape=shape))
    assert answer.status == 400
    assert answer.error.startswith("input 'features': expected shape [rows, 10] with at least 1 row, found [")


@pytest.mark.parametrize("shape", ["1, 10", [1.5, 10], [True, 10], ["1", 10], None, {}])
def test_a_shape_that_is_not_a_list_of_integers_is_refused(linear: Served, shape: Any) -> None:
    answer = linear.infer(features(shape=shape))
    assert answer.status == 400
    assert "`$.inputs[0].shape" in answer.error


def test_more_rows_than_the_limit_are_refused(linear: Served) -> None:
    answer = linear.infer(features(*[ROW] * 101))
    assert (answer.status, answer.error) == (413, "input 'features': expected at most 100 rows a request, found 101")
    assert linear.infer(features(*[ROW] * 100)).status == 200
    assert linear.infer(features(shape=[10**30, 10])).status == 413


@pytest.mark.parametrize("data", [ROW[:9], [*ROW, 1.0], [], ROW * 2])
def test_values_that_do_not_fill_the_shape_are_refused(linear: Served, data: list[float]) -> None:
    answer = linear.infer(features(data=data))
    assert answer.status == 400
    assert answer.error == f"input 'features': expected 10 values for the shape [1, 10], found {len(data)}"


def test_rows_of_the_wrong_length_are_refused_with_their_index(linear: Served) -> None:
    answer = linear.infer(features(row(), row(), data=[ROW, ROW[:9]]))
    assert answer.status == 400
    assert answer.error == "input 'features', data[1]: expected 2 lists of 10 values for its shape, found a list of 9"
    assert linear.infer(features(data=[ROW, ROW])).error.endswith(
        "expected 1 lists of 10 values for its shape, found 2 lists"
    )
    assert linear.infer(features(row(), row(), data=[ROW, 3.0])).error.endswith("for its shape, found 3.0")


def test_data_nested_deeper_than_rows_is_refused(linear: Served) -> None:
    answer = linear.infer(features(data=[[ROW]]))
    assert answer.status == 400
    assert "expected a list of numbers" in answer.error


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_deep_nesting_anywhere_is_refused(linear: Served, depth: int) -> None:
    body = json.dumps(features(data="DEEP")).replace('"DEEP"', "[" * depth + "]" * depth)
    assert linear.infer(body.encode()).status == 400
    assert linear.infer(b"[" * depth).status == 400
    deep = '{"inputs":[],"parameters":' + '{"a":' * depth + "1" + "}" * depth + "}"
    assert linear.infer(deep.encode()).status == 400


@pytest.mark.parametrize(
    "value", ['"59"', "true", "{}", "NaN", "Infinity", "-Infinity", "nan", "1e400", "--1", "0x10", "01"]
)
def test_a_value_that_is_not_a_number_is_refused(linear: Served, value: str) -> None:
    body = json.dumps(features(row(s1="VALUE"))).replace('"VALUE"', value)
    assert linear.infer(body.encode()).status == 400
    assert linear.infer(json.dumps(features(row(), row(s1="VALUE"))).replace('"VALUE"', value).encode()).status == 400


@pytest.mark.parametrize("value", [3.5e38, -3.5e38, 1e308])
def test_a_number_that_overflows_the_datatype_is_refused_with_its_position(linear: Served, value: float) -> None:
    where = "input 'features', row {}, column 's1' (index 4): expected a number that FP32 can hold, found "
    alone, batch = linear.infer(features(row(s1=value))), linear.infer(features(row(), row(s1=value)))
    assert (alone.status, batch.status) == (400, 400)
    assert alone.error.startswith(where.format(0))
    assert batch.error.startswith(where.format(1))


@pytest.mark.parametrize(
    ("changes", "column", "expected", "found"),
    [
        ({"age": 17.9}, "'age' (index 0)", "a number at least 18 and at most 100", "17.9"),
        ({"age": 1000}, "'age' (index 0)", "a number at least 18 and at most 100", "1000"),
        ({"sex": 3}, "'sex' (index 1)", "one of 1, 2", "3"),
        ({"bmi": 10.0}, "'bmi' (index 2)", "a number greater than 10 and less than 70", "10"),
        ({"bmi": 70}, "'bmi' (index 2)", "a number greater than 10 and less than 70", "70"),
        ({"bp": 39.9}, "'bp' (index 3)", "a number at least 40, or null", "39.9"),
        ({"age": None}, "'age' (index 0)", "a number at least 18 and at most 100", "null"),
        ({"sex": None}, "'sex' (index 1)", "one of 1, 2", "null"),
        ({"s6": None}, "'s6' (index 9)", "a number that FP32 can hold", "null"),
    ],
)
def test_a_value_outside_the_contract_is_refused_with_its_row_and_column(
    linear: Served, changes: dict[str, Any], column: str, expected: str, found: str
) -> None:
    for rows, index in (([row(**changes)], 0), ([row(), row(), row(**changes)], 2)):
        answer = linear.infer(features(*rows))
        assert answer.status == 400
        assert answer.error.startswith(
            f"input 'features', row {index}, column {column}: expected {expected}, found {found}"
        )


def test_values_on_the_bounds_are_accepted(linear: Served) -> None:
    for changes in ({"age": 18}, {"age": 100}, {"bmi": 10.000001}, {"bmi": 69.9999}, {"bp": 40}, {"sex": 1.0}):
        assert linear.infer(features(row(**changes))).status == 200
        assert linear.infer(features(row(), row(**changes))).status == 200


def test_the_first_invalid_value_is_named_and_the_others_counted(linear: Served) -> None:
    answer = linear.infer(features(row(), row(age=1, sex=9), row(bmi=0)))
    assert "row 1, column 'age'" in answer.error
    assert answer.error.endswith("(and 2 more values are invalid)")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"small": [0]}, "column 'small' (index 0): expected an integer greater than 0 and at most 9.5, found 0"),
        ({"small": [10]}, "column 'small' (index 0): expected an integer greater than 0 and at most 9.5, found 10"),
        ({"small": [2.5]}, "expected a list of integers"),
        ({"small": [None]}, "found null"),
        ({"large": [2**63]}, "expected an integer that INT64 can hold, found 9223372036854775808"),
        ({"large": [10**400]}, "large"),
        ({"large": [True]}, "expected a list of integers"),
        ({"flag": [1]}, "expected a list of booleans"),
        ({"flag": [None]}, "column 'flag' (index 0): expected true or false, found null"),
        ({"town": ["Oslo"]}, 'column \'town\' (index 0): expected one of "Ulm", "Bonn", or null, found "Oslo"'),
        ({"town": [7]}, "expected a list of texts"),
        ({"wide": [1]}, "expected 2 values"),
    ],
)
def test_values_of_every_datatype_are_checked(mixed: Served, changes: dict[str, Any], said: str) -> None:
    answer = mixed.infer(mixture(**changes))
    assert answer.status == 400
    assert said in answer.error


def test_inputs_with_different_row_counts_are_refused(mixed: Served) -> None:
    request = mixture()
    request["inputs"][1] |= {"shape": [2, 1], "data": [1, 2]}
    assert mixed.infer(request).error == "input 'small' has 2 rows and input 'wide' has 1; expected the same number"


def test_an_answer_that_is_not_finite_is_refused_with_its_row(mixed: Served) -> None:
    answer = mixed.infer(mixture(wide=[1, 0]))
    assert answer.status == 422
    assert answer.error.startswith("the model has no finite answer for row 0: output 'quotient'")
    batch = mixture(wide=[1, 4, 0, 0], small=[1, 1], large=[1, 1], flag=[True, True], town=["Ulm", "Ulm"])
    for tensor in batch["inputs"]:
        tensor["shape"][0] = 2
    assert "row 1" in mixed.infer(batch).error


def test_an_unknown_output_is_refused_and_the_known_ones_listed(linear: Served) -> None:
    answer = linear.infer(features() | {"outputs": [{"name": "score"}]})
    assert (answer.status, answer.error) == (400, "unknown output 'score'; the model returns 'variable'")


def test_a_repeated_output_is_refused(linear: Served) -> None:
    assert linear.infer(features() | {"outputs": [{"name": "variable"}] * 2}).status == 400


@pytest.mark.parametrize("name", [7, None, ["a"], "x" * 257])
def test_an_id_that_is_not_a_short_text_is_refused(linear: Served, name: Any) -> None:
    assert linear.infer(features() | {"id": name}).status == (200 if name is None else 400)


def test_parameters_that_are_not_an_object_are_refused(linear: Served) -> None:
    assert linear.infer(features(parameters=[1])).status == 400


def test_an_unknown_model_is_not_found(linear: Served) -> None:
    for path in ("/v2/models/other", "/v2/models/other/ready", "/v2/models/other/infer"):
        answer = linear.get(path)
        assert (answer.status, answer.error) == (404, f"unknown model 'other'; this server serves '{NAME}'")
    assert linear.infer(features(), path="/v2/models/other/infer").status == 404


@pytest.mark.parametrize("version", ["1", "sha256:", "f" * 64, "sha256:" + "f" * 64, "f" * 12])
def test_an_unknown_version_is_not_found(linear: Served, version: str) -> None:
    answer = linear.infer(features(), path=f"/v2/models/{NAME}/versions/{version}/infer")
    assert answer.status == 404
    assert answer.error == f"unknown version {version!r} of {NAME!r}; this server serves {linear.bundle.digest!r}"


def test_a_version_is_named_by_exactly_twelve_digits(linear: Served) -> None:
    digits = linear.bundle.digest.removeprefix("sha256:")
    for version in (digits[:8], digits[:13], "sha256:" + digits[:12]):
        assert linear.get(f"/v2/models/{NAME}/versions/{version}").status == 404


@pytest.mark.parametrize(
    "path", ["/", "", "/v1/models/x", "/v2/health", f"/v2/models/{NAME}/explain", "/v2/models", "/☃"]
)
def test_an_unknown_path_is_not_found(linear: Served, path: str) -> None:
    answer = linear.get(path)
    assert answer.status == 404
    assert answer.error.startswith("unknown path")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_inference_allows_only_post(linear: Served, method: str) -> None:
    answer = linear.get(f"/v2/models/{NAME}/infer", method)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready", f"/v2/models/{NAME}", "/metrics"])
def test_other_paths_allow_only_get_and_head(linear: Served, path: str) -> None:
    answer = linear.get(path, "POST")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.error == "expected GET, found POST"


def test_an_unexpected_error_is_a_500_that_names_its_trace_in_the_log(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = serve(linear_bundle())

    def fail() -> Any:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(made.predictor._model, "run_row", fail)
    with caplog.at_level(logging.ERROR):
        answer = made.infer(features())
    assert answer.status == 500
    assert "secret detail" not in answer.error
    assert "Traceback" not in answer.error
    (record,) = caplog.records
    assert vars(record)["trace"] in answer.error
    assert answer.headers["traceparent"].split("-")[1] == vars(record)["trace"]
    assert record.exc_info is not None
    assert made.metrics.in_flight == 0


def test_refused_requests_are_counted_but_not_in_the_inference_log(linear: Served) -> None:
    linear.infer(b"{")
    linear.infer(features(row(age=1)))
    linear.infer(features())
    metrics = linear.get("/metrics").body
    assert b'inference_requests_total{code="400"} 2.0' in metrics
    assert b'inference_requests_total{code="200"} 1.0' in metrics
    assert len(linear.logged()) == 1
