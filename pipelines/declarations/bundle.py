"""A bundle: everything that is promoted together, named by the digest of its `bundle.json`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from pipelines.declarations.datatypes import Datatype
from pipelines.declarations.digests import Digest, canonical_json, digest_of_bytes
from pipelines.declarations.documents import Declaration
from pipelines.declarations.model import Task
from pipelines.declarations.names import Name

FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]

MANIFEST = "bundle.json"
"""The file that names all the others; its digest is the bundle's id."""

FILES = ("model.onnx", "schema.json", "baseline.json", "evaluation.json", "golden.json", "card.md")
"""The files of a bundle, besides its manifest."""


class BundledFile(Declaration):
    """One file of a bundle."""

    sha256: Digest
    size: Annotated[int, Field(ge=0)]


class Source(Declaration):
    """The code a bundle was made by, as digests of its content.

    Attributes:
        model: of the model's folder, without its releases.
        pipelines: of the package `pipelines`.
        requirements: of the pinned requirements.
    """

    model: Digest
    pipelines: Digest
    requirements: Digest


class DatasetVersion(Declaration):
    """The data a bundle was made from.

    Attributes:
        dataset: the contract's name.
        table: `<database>.<table>` in the catalogue.
        snapshot: the Iceberg snapshot's id, as text: JSON numbers are too small for it.
        content: the digest of the rows that were read, in the order of their keys.
        rows: how many.
    """

    dataset: Name
    table: str
    snapshot: Annotated[str, StringConstraints(pattern=r"^[0-9]+$")]
    content: Digest
    rows: Annotated[int, Field(ge=1)]


class Bundle(Declaration):
    """`bundle.json`. Holds no timestamp and no commit, so that the same inputs give the same digest.

    Attributes:
        model: the model's name.
        task: regression or classification.
        files: name → digest and size of every other file of the bundle.
        source: the code.
        contract: digest of the contract's file.
        dataset: the data.
        image: digest of the training image.
        parameters: what the training function got.
        seed: of its random choices.
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
        """The canonical bytes of `bundle.json`."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """The bundle's id."""
        return digest_of_bytes(self.manifest())


class RequestColumn(Declaration):
    """One column of an input tensor, and the values it may hold.

    Attributes:
        name: the feature.
        minimum, maximum, exclusive_minimum, exclusive_maximum: bounds from the contract.
        values: the only values allowed, if the contract lists them.
        nullable: whether the contract lets the value be absent (NaN in a float tensor).
    """

    name: str
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    exclusive_maximum: float | None = None
    values: tuple[str | int | float | bool, ...] | None = None
    nullable: bool = False


class TensorSpec(Declaration):
    """An input or output of a model.

    Attributes:
        name: in the ONNX graph.
        datatype: of its elements.
        shape: -1 stands for the number of rows.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class InputTensor(TensorSpec):
    """An input of a model, with the values it accepts.

    Attributes:
        columns: one for each element of a row.
    """

    columns: tuple[RequestColumn, ...]


class RequestSchema(Declaration):
    """`schema.json`: what a request to the model must look like, and what comes back."""

    format: Literal["mlops/request-schema/v1"] = "mlops/request-schema/v1"
    inputs: Annotated[tuple[InputTensor, ...], Field(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]


class Tensor(Declaration):
    """A tensor with its values, as the Open Inference Protocol writes it in a request or a response.

    Attributes:
        name: of the model's input or output.
        datatype: of its elements.
        shape: without -1.
        data: the elements in row-major order, flat.
    """

    name: str
    datatype: Datatype
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    data: tuple[str | int | float | bool | None, ...]


class GoldenPredictions(Declaration):
    """`golden.json`: a request of a few rows and the answer the model gave when it was packaged.

    Attributes:
        inputs: every input of the model; all have the same number of rows.
        outputs: what must come back, to within the tolerance where it is a number, exactly where it is not.
        absolute_tolerance, relative_tolerance: as in `|found - expected| <= absolute + relative * |expected|`.
    """

    format: Literal["mlops/golden/v1"] = "mlops/golden/v1"
    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    absolute_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-5
    relative_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
