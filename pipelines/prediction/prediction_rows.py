"""Make the rows of the table of predictions from an input and the answers of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.declarations.bundle import TensorSpec
from pipelines.declarations.contract import Column, Contract
from pipelines.declarations.predictions_contract import (
    BATCH_COLUMN,
    BUNDLE_COLUMN,
    LONGEST_NAME,
    PREDICTION_COLUMN,
    PROBABILITY,
    REFUSED_COLUMN,
    ROW_COLUMN,
)
from pipelines.prediction.prediction_inputs import RefusedInputError, values_of
from pipelines.serving.row_scoring import RowScorer, ScoredRows

LONGEST_REASON = 500
"""Size limit of the reason of a refused row, in characters."""

UNDEFINED = "the model has no finite answer"
FAILED = "the model fails"

_LABEL, _PROBABILITIES = "label", "probabilities"


@dataclass
class Counts:
    """Rows of a prediction so far.

    Attributes:
        rows: rows of the input.
        refused: those without a prediction.
        reasons: reason without the value that was found → rows.
    """

    rows: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def probability_columns(outputs: Sequence[TensorSpec], classes: Sequence[str | int] | None) -> tuple[str, ...]:
    """Return the columns of the probabilities of classes, in their order; none for a regression.

    A column is called `probability_<class>`, or by the place of the class if a class does not fit into a name.

    Args:
        outputs: outputs of the model.
        classes: its classes; None if the bundle does not name them.
    """
    found = next((tensor for tensor in outputs if tensor.name == _PROBABILITIES), None)
    if found is None:
        return ()
    number = found.shape[1]
    names = tuple(f"{PROBABILITY}{name}".lower().replace("-", "_") for name in classes or ())
    fit = all(name.isidentifier() and name.isascii() and len(name) <= LONGEST_NAME for name in names)
    if not fit or len(set(names)) != number:
        return tuple(f"{PROBABILITY}{index}" for index in range(number))
    return names


def with_probabilities(contract: Contract, columns: Sequence[str]) -> Contract:
    """Return the contract of predictions with the columns of the probabilities of classes."""
    known = contract.columns
    prediction = known[PREDICTION_COLUMN]
    added = tuple(
        Column(
            name=name,
            logicalType="number",
            description=f"Probability of {name.removeprefix(PROBABILITY)}.",
            classification=prediction.classification,
            tags=prediction.tags,
        )
        for name in columns
        if name not in known
    )
    table = contract.table.model_copy(update={"properties": (*contract.table.properties, *added)})
    return contract.model_copy(update={"tables": (table,)})


class PredictionWriter:
    """Makes rows of the table of predictions.

    Args:
        name: name of the input, for messages.
        scorer: predicts.
        schema: columns of the table.
        copied: column of the input → column of the table.
        probabilities: columns of the probabilities of classes.
        personal: columns of the input whose values must not appear in reasons.
        batch: value of the column that names the batch prediction.
        bundle: digest of the bundle.

    Attributes:
        counts: what became of the rows so far.
    """

    def __init__(
        self,
        name: str,
        scorer: RowScorer,
        schema: pa.Schema,
        copied: Mapping[str, str],
        probabilities: Sequence[str],
        personal: Collection[str],
        batch: str,
        bundle: str,
    ) -> None:
        self._name = name
        self._scorer = scorer
        self._schema = schema
        self._copied = copied
        self._probabilities = probabilities
        self._personal = frozenset(personal)
        self._batch = batch
        self._bundle = bundle
        self.counts = Counts()

    def predict(self, part: pa.RecordBatch) -> pa.RecordBatch:
        """Predict the next rows of the input, and return their rows of the table, in the same order.

        Raises:
            RefusedInputError: a value cannot be read, or the table cannot hold it.
        """
        try:
            return self._predict(part)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            found = (str(error).splitlines() or [type(error).__name__])[0][:200]
            if self._personal.intersection(self._copied):  # the error quotes a value
                found = type(error).__name__
            raise RefusedInputError(
                f"{self._name} cannot be predicted: rows from {self.counts.rows + 1} on: expected values that can be "
                f"read and stored, found: {found}",
                fix="correct the values",
            ) from None

    def _predict(self, part: pa.RecordBatch) -> pa.RecordBatch:
        first, rows = self.counts.rows, part.num_rows
        scored = self._scorer.score(
            {tensor.name: values_of(part, tensor) for tensor in self._scorer.schema.inputs}, rows
        )
        reasons = self._reasons(scored)
        columns: dict[str, pa.Array] = {
            BATCH_COLUMN: pa.repeat(pa.scalar(self._batch), rows),
            ROW_COLUMN: pa.array(range(first + 1, first + rows + 1), pa.int64()),
            BUNDLE_COLUMN: pa.repeat(pa.scalar(self._bundle), rows),
            REFUSED_COLUMN: pa.array([reasons.get(row) for row in range(rows)], pa.string()),
            **{name: part.column(source) for source, name in self._copied.items()},
            **self._predictions(scored, rows),
        }
        arrays = []
        for wanted in self._schema:
            array = columns.get(wanted.name)
            if array is not None and pa.types.is_dictionary(array.type):
                array = array.dictionary_decode()
            arrays.append(pa.nulls(rows, wanted.type) if array is None else array.cast(wanted.type))
        self.counts.rows += rows
        self.counts.refused += len(reasons)
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _predictions(self, scored: ScoredRows, rows: int) -> dict[str, pa.Array]:
        if not scored.answered:
            return {}
        places: list[int | None] = [None] * rows
        for at, row in enumerate(scored.answered):
            places[row] = at
        index = pa.array(places, pa.int64())
        found: dict[str, pa.Array] = {}
        if _PROBABILITIES in scored.outputs:
            label = scored.outputs[_LABEL].reshape(-1)
            found[PREDICTION_COLUMN] = pa.array(label.tolist()).take(index)
            table = scored.outputs[_PROBABILITIES]
            for place, name in enumerate(self._probabilities):
                found[name] = pa.array(table[:, place]).take(index)
        else:
            (output,) = scored.outputs.values()
            found[PREDICTION_COLUMN] = pa.array(output.reshape(-1)).take(index)
        return found

    def _reasons(self, scored: ScoredRows) -> dict[int, str]:
        reasons: dict[int, list[str]] = {}
        for each in scored.wrong:
            what = f"{each.column}: expected {each.expected}"
            self.counts.reasons[what] += 1
            found = "" if each.column in self._personal else f", found {each.found}"
            reasons.setdefault(each.row, []).append(what + found)
        for why, rows in ((UNDEFINED, scored.undefined), (FAILED, scored.failed)):
            for row in rows:
                self.counts.reasons[why] += 1
                reasons[row] = [why]
        return {row: _shortened("; ".join(listed)) for row, listed in reasons.items()}


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"
