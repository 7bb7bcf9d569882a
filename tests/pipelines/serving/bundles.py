"""Bundles of tiny ONNX models, made in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import onnx
from onnx import TensorProto, helper

from pipelines.declarations.bundle import (
    FILES,
    Bundle,
    BundledFile,
    DatasetVersion,
    GoldenPredictions,
    InputTensor,
    RequestColumn,
    RequestSchema,
    Source,
    Tensor,
    TensorSpec,
)
from pipelines.declarations.digests import canonical_json, digest_of_bytes

NAME = "progression"
DIGEST = "sha256:" + "0" * 64

COLUMNS = (
    RequestColumn(name="age", minimum=18, maximum=100),
    RequestColumn(name="sex", values=(1, 2)),
    RequestColumn(name="bmi", exclusive_minimum=10.0, exclusive_maximum=70.0),
    RequestColumn(name="bp", nullable=True, minimum=40),
    *(RequestColumn(name=f"s{index}") for index in range(1, 7)),
)
"""Ten columns with every kind of bound that a contract can set."""

ROW = [59.0, 2.0, 32.1, 101.0, 157.0, 93.2, 38.0, 4.0, 4.8598, 87.0]


@dataclass(frozen=True)
class MadeBundle:
    """A bundle as `verify_bundle` returns it."""

    manifest: Bundle
    files: dict[str, bytes]

    @property
    def digest(self) -> str:
        """Return the digest of the bundle."""
        return self.manifest.digest


def made_bundle(onnx_model: bytes, schema: RequestSchema, golden: GoldenPredictions) -> MadeBundle:
    """Make a bundle of a model."""
    files = dict.fromkeys(FILES, b"{}") | {
        "model.onnx": onnx_model,
        "schema.json": canonical_json(schema.model_dump(mode="json")),
        "golden.json": canonical_json(golden.model_dump(mode="json")),
    }
    manifest = Bundle(
        model=NAME,
        task="regression",
        files={
            name: BundledFile(sha256=digest_of_bytes(content), size=len(content)) for name, content in files.items()
        },
        source=Source(model=DIGEST, pipelines=DIGEST, requirements=DIGEST),
        contract=DIGEST,
        dataset=DatasetVersion(dataset="patients", table="db.patients", snapshot="1", content=DIGEST, rows=442),
        image=DIGEST,
        parameters={},
        seed=7,
    )
    return MadeBundle(manifest, files)


def linear_bundle(
    *, expected: float = 32.1 + 59.0, columns: tuple[RequestColumn, ...] = COLUMNS, slope: float = 1.0
) -> MadeBundle:
    """Make a bundle of a model that adds age and bmi, the first and third of ten columns.

    Args:
        expected: golden prediction for `ROW`.
        columns: what the request schema allows.
        slope: factor of the differences from the prediction for `ROW`.
    """
    schema = RequestSchema(
        inputs=(InputTensor(name="features", datatype="FP32", shape=(-1, 10), columns=columns),),
        outputs=(TensorSpec(name="variable", datatype="FP32", shape=(-1, 1)),),
    )
    golden = GoldenPredictions(
        inputs=(Tensor(name="features", datatype="FP32", shape=(1, 10), data=tuple(ROW)),),
        outputs=(Tensor(name="variable", datatype="FP32", shape=(1, 1), data=(expected,)),),
    )
    return made_bundle(linear_onnx(slope), schema, golden)


def linear_onnx(slope: float = 1.0) -> bytes:
    """Make a model of age + bmi that replaces missing values by 0; see `linear_bundle`."""
    nodes = [
        helper.make_node(
            "Imputer",
            ["features"],
            ["whole"],
            domain="ai.onnx.ml",
            imputed_value_floats=[0.0],
            replaced_value_float=float("nan"),
        ),
        helper.make_node(
            "LinearRegressor",
            ["whole"],
            ["variable"],
            domain="ai.onnx.ml",
            coefficients=[slope, 0.0, slope, *[0.0] * 7],
            intercepts=[(1 - slope) * (32.1 + 59.0)],
        ),
    ]
    return graph(nodes, {"features": (TensorProto.FLOAT, 10)}, {"variable": (TensorProto.FLOAT, 1)})


def mixed_bundle() -> MadeBundle:
    """Make a bundle of a model with inputs of the other datatypes, which it returns, and a quotient that can overflow.

    Inputs: `wide` FP64 (a, b), `small` INT32, `large` INT64, `flag` BOOL, `town` BYTES (Ulm or Bonn, or null).
    Outputs: `quotient` a / b, and each of the other inputs under its name + `_out`.
    """
    kinds: dict[str, tuple[Any, Any, int, tuple[RequestColumn, ...]]] = {
        "wide": ("FP64", TensorProto.DOUBLE, 2, (RequestColumn(name="a"), RequestColumn(name="b"))),
        "small": ("INT32", TensorProto.INT32, 1, (RequestColumn(name="small", exclusive_minimum=0, maximum=9.5),)),
        "large": ("INT64", TensorProto.INT64, 1, (RequestColumn(name="large"),)),
        "flag": ("BOOL", TensorProto.BOOL, 1, (RequestColumn(name="flag"),)),
        "town": (
            "BYTES",
            TensorProto.STRING,
            1,
            (RequestColumn(name="town", values=("Ulm", "Bonn"), nullable=True),),
        ),
    }
    nodes = [
        helper.make_node("Split", ["wide"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("Div", ["a", "b"], ["quotient"]),
        *(helper.make_node("Identity", [name], [f"{name}_out"]) for name in list(kinds)[1:]),
    ]
    outputs = {"quotient": (TensorProto.DOUBLE, 1)} | {f"{n}_out": (k[1], 1) for n, k in list(kinds.items())[1:]}
    datatypes = {"quotient": "FP64"} | {f"{name}_out": kind[0] for name, kind in list(kinds.items())[1:]}
    schema = RequestSchema(
        inputs=tuple(
            InputTensor(name=name, datatype=datatype, shape=(-1, width), columns=columns)
            for name, (datatype, _, width, columns) in kinds.items()
        ),
        outputs=tuple(TensorSpec(name=name, datatype=datatype, shape=(-1, 1)) for name, datatype in datatypes.items()),
    )
    data: dict[str, tuple[Any, ...]] = {
        "wide": (1.0, 4.0),
        "small": (3,),
        "large": (7,),
        "flag": (True,),
        "town": ("Ulm",),
    }
    golden = GoldenPredictions(
        inputs=tuple(
            Tensor(name=name, datatype=kinds[name][0], shape=(1, len(values)), data=values)
            for name, values in data.items()
        ),
        outputs=(Tensor(name="quotient", datatype="FP64", shape=(1, 1), data=(0.25,)),),
    )
    model = graph(nodes, {name: (kind[1], kind[2]) for name, kind in kinds.items()}, outputs)
    return made_bundle(model, schema, golden)


def failing_bundle() -> MadeBundle:
    """Make a bundle of a model that looks `code` up in a list of three numbers, and fails at any other code."""
    nodes = [
        helper.make_node("Constant", [], ["list"], value=helper.make_tensor("l", TensorProto.FLOAT, [3], [1, 2, 3])),
        helper.make_node("Gather", ["list", "code"], ["found"]),
    ]
    schema = RequestSchema(
        inputs=(InputTensor(name="code", datatype="INT64", shape=(-1, 1), columns=(RequestColumn(name="code"),)),),
        outputs=(TensorSpec(name="found", datatype="FP32", shape=(-1, 1)),),
    )
    golden = GoldenPredictions(
        inputs=(Tensor(name="code", datatype="INT64", shape=(1, 1), data=(1,)),),
        outputs=(Tensor(name="found", datatype="FP32", shape=(1, 1), data=(2.0,)),),
    )
    model = graph(nodes, {"code": (TensorProto.INT64, 1)}, {"found": (TensorProto.FLOAT, 1)})
    return made_bundle(model, schema, golden)


def classifier_bundle() -> MadeBundle:
    """Make a bundle of a classifier with two classes, which the sign of its one feature decides."""
    nodes = [
        helper.make_node("Sigmoid", ["features"], ["one"]),
        helper.make_node("Sub", ["unit", "one"], ["zero"]),
        helper.make_node("Concat", ["zero", "one"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    made = helper.make_graph(
        nodes,
        "classes",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 1])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        [helper.make_tensor("unit", TensorProto.FLOAT, [1], [1.0])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    schema = RequestSchema(
        inputs=(InputTensor(name="features", datatype="FP32", shape=(-1, 1), columns=(RequestColumn(name="x"),)),),
        outputs=(
            TensorSpec(name="label", datatype="INT64", shape=(-1,)),
            TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 2)),
        ),
    )
    golden = GoldenPredictions(
        inputs=(Tensor(name="features", datatype="FP32", shape=(2, 1), data=(0.0, 50.0)),),
        outputs=(
            Tensor(name="label", datatype="INT64", shape=(2,), data=(0, 1)),
            Tensor(name="probabilities", datatype="FP32", shape=(2, 2), data=(0.5, 0.5, 0.0, 1.0)),
        ),
    )
    return made_bundle(model.SerializeToString(), schema, golden)


def graph(nodes: list[Any], inputs: dict[str, tuple[int, int]], outputs: dict[str, tuple[int, int]]) -> bytes:
    """Serialize an ONNX model of `nodes`; inputs and outputs: name → element type and width."""
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, kind, [None, width]) for name, (kind, width) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, [None, width]) for name, (kind, width) in outputs.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def with_file(bundle: MadeBundle, name: str, content: bytes) -> MadeBundle:
    """Return the bundle with the content of one file replaced, and a matching manifest."""
    files = bundle.files | {name: content}
    entry = BundledFile(sha256=digest_of_bytes(content), size=len(content))
    manifest = bundle.manifest.model_copy(update={"files": dict(bundle.manifest.files) | {name: entry}})
    return replace(bundle, manifest=manifest, files=files)
