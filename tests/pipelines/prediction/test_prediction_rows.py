from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.declarations.bundle import TensorSpec
from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import DeclarationError
from pipelines.declarations.names import predictions_name
from pipelines.declarations.predictions_contract import copied_columns, predictions_contract
from pipelines.declarations.project import Project
from pipelines.prediction import prediction_inputs
from pipelines.prediction.prediction_inputs import RefusedInputError, check_columns_of, in_parts, open_file, read_file
from pipelines.prediction.prediction_rows import PredictionWriter, probability_columns, with_probabilities
from pipelines.serving.predictor import Predictor
from pipelines.serving.request_error import RequestError
from pipelines.serving.row_scoring import RowScorer
from pipelines.serving.runtime import OnnxModel
from tests.pipelines.prediction.progression import FEATURES, MODEL, patients, progression_bundle, save
from tests.pipelines.serving.bundles import ROW, classifier_bundle, failing_bundle, mixed_bundle
from tests.sample_project import PROJECT, copy_as_forked

DECLARED = Project(PROJECT)
SOURCE = DECLARED.contract(DECLARED.model(MODEL).contract)
NUMBERS = pa.schema([("patient_id", pa.int64()), *((name, pa.float64()) for name in FEATURES)])


@pytest.fixture(scope="module")
def scorer() -> RowScorer:
    made = progression_bundle()
    return RowScorer(made.manifest, made.files, OnnxModel)


def predicted(scorer: RowScorer, table: pa.Table, personal: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """Predict rows, all at once, and return the rows of the table of predictions."""
    kinds = {"batch": pa.string(), "row": pa.int64(), "patient_id": pa.int64(), "prediction": pa.float64()}
    schema = pa.schema([*kinds.items(), ("refused", pa.string()), ("bundle", pa.string())])
    writer = PredictionWriter(
        "a.parquet", scorer, schema, {"patient_id": "patient_id"}, (), personal, "abc", "sha256:1"
    )
    rows: list[dict[str, Any]] = writer.predict(table.combine_chunks().to_batches()[0]).to_pylist()
    return rows


def contract_with(**properties: Any) -> Contract:
    """Return the sample's contract with custom properties."""
    listed = [{"property": name, "value": value} for name, value in properties.items()]
    return Contract.model_validate({**SOURCE.model_dump(by_alias=True), "customProperties": listed}, strict=False)


def test_each_row_is_predicted_as_a_request_would_be(scorer: RowScorer) -> None:
    rows = predicted(scorer, patients(3))
    assert [row["prediction"] for row in rows] == pytest.approx([52.1, 53.1, 54.1])
    assert rows[2] == {
        "batch": "abc",
        "row": 3,
        "patient_id": 3,
        "prediction": rows[2]["prediction"],
        "refused": None,
        "bundle": "sha256:1",
    }


def test_a_row_that_breaks_the_schema_gets_a_reason_and_the_others_a_prediction(scorer: RowScorer) -> None:
    rows = predicted(scorer, patients(3, age=[17, 30, None], sex=[3, 1, 1]))
    assert [row["prediction"] is None for row in rows] == [True, False, True]
    expected = "age: expected a number at least 18 and at most 100, found 17; sex: expected one of 1, 2, found 3"
    assert rows[0]["refused"] == expected
    assert rows[1]["refused"] is None
    assert "age: expected a number at least 18 and at most 100, found null" in rows[2]["refused"]


def test_a_value_that_may_be_about_a_person_is_not_part_of_a_reason(scorer: RowScorer) -> None:
    (row,) = predicted(scorer, patients(1, sex=[77]), frozenset({"sex"}))
    assert row["refused"] == "sex: expected one of 1, 2"


def test_a_row_at_which_the_model_fails_fails_no_other_row_and_its_value_is_said_nowhere(
    capfd: pytest.CaptureFixture[str],
) -> None:
    made = failing_bundle()
    scorer = RowScorer(made.manifest, made.files, OnnxModel)
    codes = [index % 3 for index in range(1000)]
    codes[17] = codes[900] = 77_665_544
    found = scorer.score({"code": codes}, 1000)
    assert found.failed == [17, 900]
    assert found.answered == [row for row in range(1000) if row not in found.failed]
    expected = [[code + 1.0] for code in codes if code < 3]
    assert found.outputs["found"].tolist() == expected
    assert scorer.score({"code": [77_665_544]}, 1).failed == [0]
    schema = pa.schema([("prediction", pa.float64()), ("refused", pa.string())])
    writer = PredictionWriter("a.parquet", scorer, schema, {}, (), (), "abc", "sha256:1")
    rows = writer.predict(pa.record_batch({"code": pa.array([2, 77_665_544])})).to_pylist()
    assert rows == [{"prediction": 3.0, "refused": None}, {"prediction": None, "refused": "the model fails"}]
    assert "77665544" not in "".join(capfd.readouterr()), "not even by onnxruntime itself"


def test_nan_is_a_missing_value(scorer: RowScorer) -> None:
    missing = predicted(scorer, patients(1, bp=[float("nan")]))
    assert missing[0]["refused"] is None, "bp is nullable"
    assert "found null" in predicted(scorer, patients(1, bmi=[float("nan")]))[0]["refused"]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.float16(), pa.float32(), pa.decimal128(5, 1)])
def test_numbers_of_any_width_are_read(scorer: RowScorer, kind: pa.DataType) -> None:
    (row,) = predicted(scorer, patients(1, age=pa.array([40.0]).cast(kind)))
    assert row["prediction"] == pytest.approx(72.1)


@pytest.mark.parametrize("age", [17.999, 17.9999999, 18, 100, 100.000001, 100.00001, -1e300, 1e39, None])
def test_a_row_is_refused_exactly_if_the_endpoint_refuses_the_request(scorer: RowScorer, age: float | None) -> None:
    made = progression_bundle()
    row: list[Any] = [age, *ROW[1:]]
    body = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 10], "data": row}]}
    try:
        answer = json.loads(Predictor(made.manifest, made.files).answer(json.dumps(body).encode(), b"1").body)
        expected = answer["outputs"][0]["data"]
    except RequestError:
        expected = []
    outputs = scorer.score({"features": row}, 1).outputs
    assert [value for output in outputs.values() for value in output.ravel().tolist()] == expected


def test_a_model_without_a_finite_answer_refuses_the_row_only() -> None:
    made = mixed_bundle()
    scorer = RowScorer(made.manifest, made.files, OnnxModel)
    values: dict[str, list[Any]] = {
        "wide": [1.0, 4.0, 1.0, 0.0],
        "small": [3, 3],
        "large": [7, 7],
        "flag": [True, True],
        "town": ["Ulm", None],
    }
    found = scorer.score(values, 2)
    assert (found.answered, found.undefined) == ([0], [1])
    assert found.outputs["quotient"].tolist() == [[0.25]]


def test_a_classification_has_a_label_and_a_probability_for_each_class() -> None:
    made = classifier_bundle()
    scorer = RowScorer(made.manifest, made.files, OnnxModel)
    columns = probability_columns(scorer.schema.outputs, (0, 1))
    assert columns == ("probability_0", "probability_1")
    kinds = {
        "row": pa.int64(),
        "prediction": pa.int64(),
        **dict.fromkeys(columns, pa.float64()),
        "refused": pa.string(),
    }
    writer = PredictionWriter("a.parquet", scorer, pa.schema(list(kinds.items())), {}, columns, (), "abc", "sha256:1")
    rows = writer.predict(pa.record_batch({"x": [50.0, None, -50.0]})).to_pylist()
    assert [row["prediction"] for row in rows] == [1, None, 0]
    assert [round(row["probability_1"], 3) if row["refused"] is None else None for row in rows] == [1.0, None, 0.0]
    assert (writer.counts.rows, writer.counts.refused) == (3, 1)


@pytest.mark.parametrize(
    ("classes", "columns"),
    [
        (("no", "YES"), ("probability_no", "probability_yes")),
        (("low-risk", "high-risk"), ("probability_low_risk", "probability_high_risk")),
        (("a b", "c"), ("probability_0", "probability_1")),
        (("A", "a"), ("probability_0", "probability_1")),
        (("no", "é"), ("probability_0", "probability_1")),
        (None, ("probability_0", "probability_1")),
    ],
)
def test_probabilities_are_called_by_their_class_if_it_fits(classes: Any, columns: tuple[str, ...]) -> None:
    outputs = [TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 2))]
    assert probability_columns(outputs, classes) == columns


def test_the_table_has_keys_and_predictions_only() -> None:
    made = predictions_contract(DECLARED.model(MODEL), SOURCE)
    assert made.name == f"{MODEL}-predictions"
    assert list(made.columns) == ["batch", "row", "patient_id", "prediction", "refused", "bundle"]
    assert made.primary_key == ("batch", "row")
    widened = with_probabilities(made, ("probability_0",))
    assert list(widened.columns)[-1] == "probability_0"


def test_the_contract_may_say_which_columns_are_copied_with_their_classification() -> None:
    source = contract_with(predictionColumns=["sex", "bmi"])
    made = predictions_contract(DECLARED.model(MODEL), source)
    assert list(copied_columns(source)) == ["patient_id", "sex", "bmi"]
    assert made.columns["sex"].classification == "protected"
    assert made.columns["bmi"].options.minimum is None, "a refused row may have any value"


def test_a_personal_key_is_not_copied_unless_the_contract_says_so() -> None:
    text = SOURCE.model_dump(by_alias=True)
    text["schema"][0]["properties"][0]["classification"] = "confidential"
    personal = Contract.model_validate(text, strict=False)
    assert copied_columns(personal) == {}
    assert copied_columns(SOURCE, read=personal) == {}, "the dataset that is predicted classifies it"
    text["customProperties"] = [{"property": "predictionColumns", "value": ["patient_id"]}]
    assert copied_columns(Contract.model_validate(text, strict=False)) == {"patient_id": "patient_id"}


def test_a_copied_column_never_takes_the_place_of_another() -> None:
    text = SOURCE.model_dump(by_alias=True)
    text["schema"][0]["properties"][0]["name"] = "row"
    assert copied_columns(Contract.model_validate(text, strict=False)) == {"row": "row_of_input"}
    long = "probability_" + "x1" * 25
    names = ["row", "row_of_input", "row_of_input_2", long, f"{long[:54]}_of_input"[:63]]
    properties = text["schema"][0]["properties"]
    more = [{"name": name, "logicalType": "string"} for name in names[1:]]
    text["schema"][0]["properties"] = [*properties, *more]
    text["customProperties"] = [{"property": "predictionColumns", "value": names[1:]}]
    contract = Contract.model_validate(text, strict=False)
    copied = copied_columns(contract)
    assert list(copied) == names and copied["row"] == "row_of_input_3"
    assert len(set(copied.values())) == len(names)
    assert set(copied.values()) < set(predictions_contract(DECLARED.model(MODEL), contract).columns)


def test_a_prediction_is_as_protected_as_what_it_predicts() -> None:
    text = SOURCE.model_dump(by_alias=True)
    model = DECLARED.model(MODEL)
    (target,) = [each for each in text["schema"][0]["properties"] if each["name"] == model.target]
    target |= {"classification": "restricted", "tags": ["health"]}
    made = predictions_contract(model, Contract.model_validate(text, strict=False))
    columns = with_probabilities(made, ("probability_0",)).columns
    for name in ("prediction", "probability_0"):
        assert (columns[name].classification, columns[name].tags) == ("restricted", ("health",))
    assert predictions_contract(model, SOURCE).columns["prediction"].classification is None


@pytest.mark.parametrize(
    ("value", "found"), [("bmi", "a list of columns"), (["weight"], "one of"), (["bmi", "bmi"], "one of")]
)
def test_wrong_prediction_columns_are_refused(value: Any, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        contract_with(predictionColumns=value)


def test_a_misspelled_property_is_refused() -> None:
    with pytest.raises(ValueError, match="predictionColumns"):
        contract_with(predictionColumn=["bmi"])


def test_the_longest_name_of_a_model_leaves_room_for_its_predictions() -> None:
    model = DECLARED.model(MODEL).model_copy(update={"name": "m" * 40})
    assert predictions_contract(model, SOURCE).name == predictions_name("m" * 40)


def test_a_dataset_cannot_be_called_like_the_predictions_of_a_model(tmp_path: Path) -> None:
    project = copy_as_forked(tmp_path / "project")
    folder = project / "data-contracts"
    text = (folder / "diabetes-patients.odcs.yaml").read_text()
    (folder / f"{MODEL}-predictions.odcs.yaml").write_text(text.replace("diabetes-patients", f"{MODEL}-predictions"))
    with pytest.raises(DeclarationError, match="batch predictions of the model"):
        Project(project).contract(f"{MODEL}-predictions")


def test_a_model_may_only_read_datasets_with_its_features(tmp_path: Path) -> None:
    project = copy_as_forked(tmp_path / "project")
    declared = project / "models" / MODEL / "model.yaml"
    text = declared.read_text()
    declared.write_text(text + "batch: {datasets: [nothing]}\n")
    with pytest.raises(DeclarationError, match=r"batch\.datasets"):
        Project(project).model(MODEL)
    declared.write_text(text + "batch: {datasets: [diabetes-patients]}\n")
    assert Project(project).model(MODEL).batch.datasets == ("diabetes-patients",)


def test_every_missing_column_is_named(scorer: RowScorer) -> None:
    given = pa.schema([field for field in NUMBERS if field.name not in ("bmi", "patient_id")])
    with pytest.raises(RefusedInputError, match="found no bmi, patient_id"):
        check_columns_of("a.parquet", given, scorer.schema.inputs, {"patient_id": "long"})


def test_a_column_of_a_wrong_type_is_named(scorer: RowScorer) -> None:
    given = NUMBERS.set(1, pa.field("age", pa.string())).set(0, pa.field("patient_id", pa.float64()))
    with pytest.raises(RefusedInputError) as refused:
        check_columns_of("a.parquet", given, scorer.schema.inputs, {"patient_id": "long"})
    assert "'age': expected numbers, found string" in str(refused.value)
    assert "'patient_id': expected integers, found double" in str(refused.value)


def test_a_repeated_column_is_refused(scorer: RowScorer) -> None:
    with pytest.raises(RefusedInputError, match="2 columns of that name"):
        check_columns_of("a.parquet", NUMBERS.append(pa.field("age", pa.float64())), scorer.schema.inputs, {})


def test_a_file_is_read_in_parts(tmp_path: Path) -> None:
    path = save(tmp_path, patients(10_000))
    assert open_file("a", path)[1] == 10_000
    parts = list(in_parts("a", read_file("a", path, ["age"])))
    assert [part.num_rows for part in parts] == [4096, 4096, 1808]
    assert parts[0].schema.names == ["age"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"a,b\n1,2\n"])
def test_what_is_not_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(RefusedInputError, match="expected a Parquet file"):
        open_file("a.parquet", path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, patients(1000))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RefusedInputError, match="expected a Parquet file"):
        open_file("a.parquet", path)


def test_a_damaged_page_is_refused_while_it_is_read(tmp_path: Path) -> None:
    path = save(tmp_path, patients(50_000, age=np.random.default_rng(1).uniform(20, 60, 50_000)))
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    path.write_bytes(content)
    open_file("a.parquet", path)
    with pytest.raises(RefusedInputError, match="cannot be read"):
        list(read_file("a.parquet", path, FEATURES))


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedInputError, match="expected rows, found none"):
        open_file("a.parquet", save(tmp_path, patients(0)))


def test_texts_that_need_too_much_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_inputs, "LARGEST_ROWS", 1 << 20)
    long = pa.record_batch({"town": pa.array(["x" * 1000] * 3000)})
    with pytest.raises(RefusedInputError, match="MiB"):
        list(in_parts("a.parquet", [long]))


def test_a_value_that_the_table_cannot_hold_refuses_the_input(scorer: RowScorer) -> None:
    kinds = [("patient_id", pa.int32()), ("prediction", pa.float64())]
    writer = PredictionWriter("a.parquet", scorer, pa.schema(kinds), {"patient_id": "patient_id"}, (), (), "b", "c")
    with pytest.raises(RefusedInputError, match="rows from 1 on"):
        writer.predict(patients(3, first=2**40).to_batches()[0])
