"""Resource types of the AWS provider, by token."""

from __future__ import annotations

from laptop.aws.resources import (
    ecr_rows,
    eks_rows,
    event_rows,
    glue_rows,
    iam_rows,
    kms_rows,
    observability_rows,
    s3_rows,
)
from laptop.aws.resources.row import Row
from pipelines.declarations.errors import MlopsError

_MODULES = (s3_rows, kms_rows, glue_rows, ecr_rows, iam_rows, eks_rows, observability_rows, event_rows)

TABLE: dict[str, Row] = {row.token: row for module in _MODULES for row in module.ROWS}


def row_of(type_: str) -> Row:
    """Return the row of a type.

    Raises:
        MlopsError: the laptop does not support the type.
    """
    if type_ not in TABLE:
        raise MlopsError(
            f"the laptop does not support the resource type `{type_}`",
            fix="add a row for it to laptop/aws/resources/, or deploy this stack to AWS.",
        )
    return TABLE[type_]
