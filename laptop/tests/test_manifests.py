"""The laptop runs every manifest of the program."""

from __future__ import annotations

import json

import pytest

from laptop.cluster.kinds import kind_of
from laptop.cluster.manifest_schemas import problems
from laptop.cluster.supported import unsupported
from tests.infra.recording import Recording

pytestmark = pytest.mark.slow


def test_the_laptop_accepts_and_supports_every_manifest(graph: Recording) -> None:
    for resource in graph.resources:
        if resource.package == "kubernetes":
            manifest = json.loads(json.dumps(resource.plain), parse_float=_whole)
            kind = kind_of(manifest["apiVersion"], manifest["kind"])
            assert kind is not None
            assert problems(kind, manifest) == []
            assert unsupported(kind, manifest) == []


def _whole(number: str) -> int | float:
    return int(float(number)) if float(number).is_integer() else float(number)
