"""Type tokens of pulumi-kubernetes."""

from __future__ import annotations

import re

from laptop.cluster.kinds import KINDS, Kind, kind_of
from pipelines.declarations.errors import MlopsError

_TOKEN = re.compile(r"kubernetes:(?P<group>[\w.-]+)/(?P<version>\w+):(?P<kind>\w+)")


def kind_of_token(type_: str) -> Kind:
    """Return the kind of a token such as `kubernetes:batch/v1:CronJob`. The core group is `core` in tokens.

    Raises:
        MlopsError: the laptop's cluster does not support the kind.
    """
    match = _TOKEN.fullmatch(type_)
    if match is not None:
        group = "" if match["group"] == "core" else match["group"]
        found = kind_of(f"{group}/{match['version']}" if group else match["version"], match["kind"])
        if found is not None:
            return found
    known = ", ".join(sorted({f"{kind.api_version} {kind.name}" for kind in KINDS}))
    raise MlopsError(
        f"the laptop's cluster does not support `{type_}`: expected one of {known}",
        fix="add the kind to laptop/cluster/kinds.py, or deploy this stack to AWS.",
    )
