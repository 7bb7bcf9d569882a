"""Bundle: the unit of promotion, identified by the digest of its `bundle.json`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, StringConstraints, model_serializer

from pipelines.declarations.datatypes import Datatype
from pipelines.declarations.digests import Digest, canonical_json, digest_of_bytes
from pipelines.declarations.documents import Declaration
from pipelines.declarations.model import Task
from pipelines.declarations.names import DatasetName, Name

FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]

MANIFEST = "bundle.json"
"""File that lists all others; its digest is the id of the bundle."""

FILES = ("model.onnx", "schema.json", "baseline.json", "evaluation.json", "golden.json", "card.md")
"""Files of every bundle, besides its manifest."""


class BundledFile(Declaration):
    """File of a bundle: its digest and its size in bytes."""

    sha256: Digest
    size: Annotated[int, Field(ge=0)]


class Source(Declaration):
    """Digests of the code that made a bundle.

    Attributes:
        model: the folder of the model, without releases.
        pipelines: the package `pipelines`.
        requirements: the pinned requirements.
    """

    model: Digest
    pipelines: Digest
    requirements: Digest


class DatasetVersion(Declaration):
    """Version of a dataset.

    Attributes:
        dataset: name of the contract.
        table: `<database>.<table>` in the catalogue.
        snapshot: id of the Iceberg snapshot, as text because it exceeds the range of JSON numbers.
        content: digest of the rows; see `digest_of_rows`.
        rows: number of rows.
    """

    dataset: DatasetName
    table: str
    snapshot: Annotated[str, StringConstraints(pattern=r"^[0-9]+$")]
    content: Digest
    rows: Annotated[int, Field(ge=1)]


class Bundle(Declaration):
    """`bundle.json`. Has no timestamp or commit, so equal inputs give equal digests.

    Attributes:
        model: name of the model.
        task: regression or classification.
        files: name → digest and size of every other file.
        source: code that made the bundle.
        contract: digest of the contract file.
        dataset: dataset version that the model was trained on.
        image: digest of the training image.
        parameters: parameters of the training function.
        seed: random seed of the training.
    """

    format: Literal["mlops/bundle/v1"] = "mlops/bundle/v1"
    model: Name
    task: Task
    files: dict[FileName, BundledFile]
    source: Source
    contract: Digest
    dataset: DatasetVersion
    image: Digest
    parameters: dict[str, Any]
    seed: int

    def manifest(self) -> bytes:
        """Return the canonical bytes of `bundle.json`."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """Id of the bundle, `sha256:<hex>`."""
        return digest_of_bytes(self.manifest())


class RequestColumn(Declaration):
    """Column of an input tensor and its allowed values.

    Attributes:
        name: name of the feature.
        minimum, maximum, exclusive_minimum, exclusive_maximum: bounds from the contract.
        values: the allowed values, if the contract lists them.
        nullable: True if the contract allows missing values (NaN in a float tensor).
        personal: True if the contract classifies the values as personal; the inference log never holds them.
        optional: True if a request may leave the column out; its value is then missing. Such columns are the last ones.
    """

    name: str
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    exclusive_maximum: float | None = None
    values: tuple[str | int | float | bool, ...] | None = None
    nullable: bool = False
    personal: bool = False
    optional: bool = False

    @model_serializer(mode="wrap")
    def _without_default(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `personal` and `optional` if false, so that servers of earlier versions can read the schema."""
        content: dict[str, Any] = serialize(self)
        unused = {name for name in ("personal", "optional") if not content[name]}
        return {name: value for name, value in content.items() if name not in unused}


class TensorSpec(Declaration):
    """An input or output of a model.

    Attributes:
        name: name in the ONNX graph.
        datatype: datatype of the elements.
        shape: shape; -1 stands for the number of rows.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class InputTensor(TensorSpec):
    """An input of a model, with the values it accepts.

    Attributes:
        columns: one column for each element of a row.
    """

    columns: tuple[RequestColumn, ...]


class RequestSchema(Declaration):
    """`schema.json`: inputs and outputs of the model."""

    format: Literal["mlops/request-schema/v1"] = "mlops/request-schema/v1"
    inputs: Annotated[tuple[InputTensor, ...], Field(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]


class Tensor(Declaration):
    """Tensor with values, in the format of the Open Inference Protocol.

    Attributes:
        name: name of the input or output.
        datatype: datatype of the elements.
        shape: shape, without -1.
        data: elements in row-major order, flat.
    """

    name: str
    datatype: Datatype
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    data: tuple[str | int | float | bool | None, ...]


class GoldenPredictions(Declaration):
    """`golden.json`: a request of a few rows and the response of the model at packaging.

    Attributes:
        inputs: all inputs of the model, with the same number of rows.
        outputs: expected outputs; numbers within the tolerance, other values exactly.
        absolute_tolerance, relative_tolerance: `|found - expected| <= absolute + relative * |expected|`.
    """

    format: Literal["mlops/golden/v1"] = "mlops/golden/v1"
    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    absolute_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-5
    relative_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
