"""Every resource type of the AWS provider, by token."""

from __future__ import annotations

from laptop.aws.resources import ecr, eks, glue, iam, kms, observability, s3
from laptop.aws.resources.row import Row
from pipelines.declarations.errors import MlopsError

TABLE: dict[str, Row] = {
    token: row
    for module in (s3, kms, glue, ecr, iam, eks, observability)
    for row in module.ROWS
    for token in (row.token, *row.also)
}


def row_of(type_: str) -> Row:
    """The row of a type; raises MlopsError when the local target does not apply it."""
    if type_ not in TABLE:
        raise MlopsError(
            f"the local target does not apply the resource type `{type_}`",
            fix="keep it out of a local environment, or add a row for it in laptop/aws/resources/ "
            f"({type_.split(':')[1].split('/')[0] if ':' in type_ else type_}.py).",
        )
    return TABLE[type_]
