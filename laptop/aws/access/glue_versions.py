"""Optimistic locking of Glue tables, which moto leaves out: two commits to an Iceberg table would lose one.

Source: AWS Glue web API reference, `UpdateTable`, parameter `VersionId`.
"""

from __future__ import annotations

from laptop.aws.access.principals import ACCOUNT
from laptop.aws.access.request import Request, RequestRefusedError


def check_table_version(request: Request) -> None:
    """Check that a table still has the version that an update was made for.

    Raises:
        RequestRefusedError: the table has another version.
    """
    if request.service != "glue" or request.action != "UpdateTable" or "VersionId" not in request.json:
        return
    from moto.glue.models import glue_backends

    database = glue_backends[ACCOUNT][request.region].databases.get(str(request.json.get("DatabaseName")))
    named = request.json.get("TableInput")
    table = database.tables.get(str(named.get("Name"))) if database is not None and isinstance(named, dict) else None
    if table is not None and str(table.as_dict()["VersionId"]) != str(request.json["VersionId"]):
        raise RequestRefusedError(
            400, "ConcurrentModificationException", "Update table failed due to concurrent modifications."
        )
