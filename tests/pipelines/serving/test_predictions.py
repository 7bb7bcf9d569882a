"""The Open Inference Protocol: paths, metadata, health and predictions."""

from __future__ import annotations

import json

import pytest

from pipelines.serving.application import Application
from pipelines.serving.request_metrics import RequestMetrics
from tests.pipelines.serving.asgi import ask
from tests.pipelines.serving.bundles import NAME, ROW, classifier_bundle, linear_bundle
from tests.pipelines.serving.conftest import Serve, Served, features, mixture, row


def test_a_prediction_names_the_model_and_the_digest_of_its_bundle(linear: Served) -> None:
    answer = linear.infer(features())
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    content = answer.json
    assert (content["model_name"], content["model_version"]) == (NAME, linear.bundle.digest)
    (output,) = content["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("variable", "FP32", [1, 1])
    assert output["data"] == [pytest.approx(59.0 + 32.1)]


def test_flat_and_nested_data_get_the_same_answer(linear: Served) -> None:
    rows = [row(), row(age=20), row(bmi=11.5)]
    flat = linear.infer(features(*rows)).json["outputs"]
    nested = linear.infer(features(*rows, data=rows)).json["outputs"]
    assert flat == nested
    assert flat[0]["shape"] == [3, 1]
    assert flat[0]["data"] == pytest.approx([91.1, 52.1, 70.5])


def test_one_nested_row_gets_the_same_answer_as_a_flat_one(linear: Served) -> None:
    assert linear.infer(features(data=[ROW])).json["outputs"] == linear.infer(features()).json["outputs"]


def test_a_row_gets_the_same_answer_alone_and_in_a_batch(linear: Served) -> None:
    rows = [row(age=float(age)) for age in range(20, 90)]
    alone = [linear.infer(features(one)).json["outputs"][0]["data"][0] for one in rows]
    assert linear.infer(features(*rows)).json["outputs"][0]["data"] == alone


def test_no_value_of_a_request_leaks_into_the_next(linear: Served) -> None:
    linear.infer(features(row(age=99)))
    assert linear.infer(features(row(age=18, bmi=20))).json["outputs"][0]["data"] == [38.0]
    assert linear.infer(features(row(age=17))).status == 400
    assert linear.infer(features(row(age=18, bmi=20))).json["outputs"][0]["data"] == [38.0]


def test_null_is_accepted_in_a_nullable_column(linear: Served) -> None:
    assert linear.infer(features(row(bp=None))).status == 200
    assert linear.infer(features(row(bp=None), row())).status == 200


def test_every_datatype_is_read_and_written(mixed: Served) -> None:
    outputs = {
        output["name"]: output for output in mixed.infer(mixture(large=[2**63 - 1], town=["Bonn"])).json["outputs"]
    }
    assert {name: (output["datatype"], output["data"]) for name, output in outputs.items()} == {
        "quotient": ("FP64", [0.25]),
        "small_out": ("INT32", [3]),
        "large_out": ("INT64", [2**63 - 1]),
        "flag_out": ("BOOL", [True]),
        "town_out": ("BYTES", ["Bonn"]),
    }


def test_batches_of_every_datatype_are_read_and_written(mixed: Served) -> None:
    request = mixture(wide=[1, 4, 6, 3], small=[1, 9], large=[-(2**63), 0], flag=[True, False], town=["Ulm", None])
    for tensor in request["inputs"]:
        tensor["shape"][0] = 2
    outputs = {output["name"]: output["data"] for output in mixed.infer(request).json["outputs"]}
    assert outputs == {
        "quotient": [0.25, 2.0],
        "small_out": [1, 9],
        "large_out": [-(2**63), 0],
        "flag_out": [True, False],
        "town_out": ["Ulm", ""],
    }


@pytest.mark.parametrize("rows", [[50.0], [-50.0, 50.0, 50.0]])
def test_a_classifier_returns_a_label_and_probabilities_for_each_row(serve: Serve, rows: list[float]) -> None:
    made = serve(classifier_bundle())
    tensor = {"name": "features", "datatype": "FP32", "shape": [len(rows), 1], "data": rows}
    label, probabilities = made.infer({"inputs": [tensor]}).json["outputs"]
    assert (label["shape"], label["data"]) == ([len(rows)], [int(value > 0) for value in rows])
    assert probabilities["shape"] == [len(rows), 2]
    assert probabilities["data"] == pytest.approx([float(share) for value in rows for share in (value < 0, value > 0)])
    (record,) = made.logged()
    assert record["outputs"]["label"] == [[value] for value in label["data"]]
    assert [len(row) for row in record["outputs"]["probabilities"]] == [2] * len(rows)


def test_inputs_may_come_in_any_order(mixed: Served) -> None:
    request = mixture()
    request["inputs"].reverse()
    assert mixed.infer(request).json["outputs"] == mixed.infer(mixture()).json["outputs"]


def test_requested_outputs_are_returned_in_the_requested_order(mixed: Served) -> None:
    asked = mixture() | {"outputs": [{"name": "town_out"}, {"name": "quotient", "parameters": {"binary_data": False}}]}
    assert [output["name"] for output in mixed.infer(asked).json["outputs"]] == ["town_out", "quotient"]
    assert len(mixed.infer(mixture() | {"outputs": []}).json["outputs"]) == 5


@pytest.mark.parametrize("name", ["42", "", 'quoted " and \\', "naïve ☃", "x" * 256])
def test_the_id_of_a_request_is_returned(linear: Served, name: str) -> None:
    assert linear.infer(features() | {"id": name}).json["id"] == name


def test_a_request_without_an_id_gets_a_unique_one(linear: Served) -> None:
    given = {linear.infer(features()).json["id"] for _ in range(600)}
    assert len(given) == 600


def test_parameters_are_ignored(linear: Served) -> None:
    request = features(parameters={"content_type": "np"}) | {"parameters": {"priority": 3}}
    assert linear.infer(request).status == 200


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", None])
def test_every_spelling_of_the_json_content_type_is_accepted(linear: Served, content_type: str | None) -> None:
    headers = [("content-type", content_type)] if content_type else []
    assert linear.infer(features(), headers).status == 200


def test_a_body_in_several_messages_is_joined(linear: Served) -> None:
    body = json.dumps(features()).encode()
    assert linear.infer([body[:10], body[10:11], body[11:]]).status == 200


@pytest.mark.parametrize("version", ["{digest}", "{digits}", "{short}"])
def test_a_version_is_a_digest_in_full_or_its_first_twelve_digits(linear: Served, version: str) -> None:
    digits = linear.bundle.digest.removeprefix("sha256:")
    name = version.format(digest=linear.bundle.digest, digits=digits, short=digits[:12])
    root = f"/v2/models/{NAME}/versions/{name}"
    assert linear.infer(features(), path=f"{root}/infer").status == 200
    assert linear.get(f"{root}/ready").json == {"name": NAME, "ready": True}
    assert linear.get(root).json["versions"] == [linear.bundle.digest]


def test_model_metadata_follows_the_protocol(mixed: Served) -> None:
    metadata = mixed.get(f"/v2/models/{NAME}").json
    assert set(metadata) == {"name", "versions", "platform", "inputs", "outputs"}
    assert metadata["inputs"][0] == {"name": "wide", "datatype": "FP64", "shape": [-1, 2]}
    assert metadata["outputs"][-1] == {"name": "town_out", "datatype": "BYTES", "shape": [-1, 1]}


def test_server_metadata_lists_no_extensions(linear: Served) -> None:
    metadata = linear.get("/v2").json
    assert metadata["name"] == "mlops"
    assert metadata["extensions"] == []
    assert linear.get("/v2/").json == metadata


def test_head_has_the_status_of_get(linear: Served) -> None:
    assert linear.get("/v2/health/ready", "HEAD").status == 200


def test_a_loading_server_is_live_but_not_ready() -> None:
    bundle = linear_bundle()
    application = Application(NAME, bundle.digest, RequestMetrics(NAME, bundle.digest))
    assert ask(application, "GET", "/v2/health/live").json == {"live": True}
    ready = ask(application, "GET", "/v2/health/ready")
    assert (ready.status, ready.json) == (503, {"ready": False})
    assert ask(application, "GET", f"/v2/models/{NAME}/ready").status == 503
    assert ask(application, "GET", f"/v2/models/{NAME}").status == 503
    refused = ask(application, "POST", f"/v2/models/{NAME}/infer", json.dumps(features()).encode())
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert "being loaded" in refused.error


def test_a_draining_server_answers_but_closes_connections(serve: Serve) -> None:
    made = serve()
    assert "connection" not in made.infer(features()).headers
    made.application.drain()
    assert made.get("/v2/health/ready").status == 503
    assert made.get("/v2/health/live").status == 200
    answer = made.infer(features())
    assert (answer.status, answer.headers["connection"]) == (200, "close")
