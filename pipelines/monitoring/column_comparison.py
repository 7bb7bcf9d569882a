"""Comparison of a column's distribution with its reference, as reports hold it.

Apart from the tests that make it, so that a report can be read without their packages.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.declarations.documents import Declaration
from pipelines.monitoring.monitor_findings import Figure

Share = Annotated[float, Field(ge=0, le=1)]


class ShareBar(Declaration):
    """Share of the rows with a value in one part of a column's distribution, before and now.

    Attributes:
        label: the range of values, or the level.
        reference, current: shares of the rows that have a value.
    """

    label: str
    reference: Share
    current: Share


class ColumnComparison(Declaration):
    """Comparison of a column's distribution with its reference.

    Attributes:
        column: name of the column.
        kind: `numeric`, `length` (of texts) or `levels`.
        reference_rows, current_rows: rows, including nulls.
        reference_nulls, current_nulls: rows without a value.
        reference_mean, current_mean: means; None for levels.
        reference_deviation, current_deviation: standard deviations; None for levels.
        ks_distance: Kolmogorov-Smirnov distance; None for levels.
        p_value: of the tests together, not yet adjusted for the number of columns; None without values on a side.
        effect: share of rows that moved to another part of the distribution.
        psi: population stability index, for information.
        jensen_shannon: Jensen-Shannon distance, for information.
        unseen: share of the rows at levels that the reference does not have.
        bars: the distribution, for plots.
    """

    column: str
    kind: Literal["numeric", "length", "levels"]
    reference_rows: int
    current_rows: int
    reference_nulls: int
    current_nulls: int
    reference_mean: Figure | None = None
    current_mean: Figure | None = None
    reference_deviation: Figure | None = None
    current_deviation: Figure | None = None
    ks_distance: Share | None = None
    p_value: Share | None = None
    effect: Figure = 0.0
    psi: Figure = 0.0
    jensen_shannon: Figure = 0.0
    unseen: Share = 0.0
    bars: tuple[ShareBar, ...] = ()

    @property
    def reference_values(self) -> int:
        """Rows of the reference with a value."""
        return self.reference_rows - self.reference_nulls

    @property
    def current_values(self) -> int:
        """Rows of the newest delivery, or of the window, with a value."""
        return self.current_rows - self.current_nulls
