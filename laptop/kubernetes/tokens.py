"""Type tokens of pulumi-kubernetes, and the kinds of object that they stand for."""

from __future__ import annotations

import re

from laptop.cluster.kinds import KINDS, Kind, kind_of
from pipelines.declarations.errors import MlopsError

_TOKEN = re.compile(r"kubernetes:(?P<group>[\w.-]+)/(?P<version>\w+):(?P<kind>\w+)")


def kind_of_token(type_: str) -> Kind:
    """The kind of `kubernetes:batch/v1:CronJob`; raises MlopsError for what the small cluster does not keep.

    pulumi-kubernetes writes `core` for the group without a name.
    """
    match = _TOKEN.fullmatch(type_)
    if match is not None:
        group = "" if match["group"] == "core" else match["group"]
        found = kind_of(f"{group}/{match['version']}" if group else match["version"], match["kind"])
        if found is not None:
            return found
    known = ", ".join(sorted({f"{kind.api_version} {kind.name}" for kind in KINDS}))
    raise MlopsError(
        f"`{type_}` is nothing that the small cluster keeps; it keeps {known}",
        fix="keep that resource out of the stack, or teach the cluster its kind in laptop/cluster/kinds.py.",
    )
