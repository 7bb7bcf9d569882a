"""Audits, with a fake target and a fake endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.promotion.audit import audit
from tests.pipelines.promotion.promotion_project import MODEL

ONE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def run_audit(
    patch: pytest.MonkeyPatch, *, wanted: str | None, served: str | None, drift: tuple[str, ...] = ()
) -> list[str]:
    """Audit dev, where git names `wanted` and the pods serve `served` (None: they are not up); return the log."""

    @contextmanager
    def connected(_descriptor: object, _model: str) -> Iterator[list[SimpleNamespace]]:
        if served is None:
            raise MlopsError("it does not answer")
        yield [SimpleNamespace(served=lambda one=one: one) for one in served.split()]

    target: Any = SimpleNamespace(
        project=SimpleNamespace(model_names=(MODEL,), release=lambda *_: SimpleNamespace(bundle=wanted)),
        is_up=lambda _: True,
        descriptor=lambda _: SimpleNamespace(endpoints={MODEL: "http://x"} if served else {}),
        drift=lambda _: list(drift),
    )
    patch.setattr("pipelines.promotion.audit.open_pods", connected)
    lines: list[str] = []
    assert audit(target, "dev", lines.append)
    return lines


def test_an_environment_that_was_never_brought_up_is_skipped() -> None:
    target: Any = SimpleNamespace(is_up=lambda _: False)
    lines: list[str] = []
    assert not audit(target, "staging", lines.append)
    assert lines == ["staging was never brought up: skipped"]


def test_an_environment_that_matches_git_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_audit(monkeypatch, wanted=ONE, served=f"{ONE} {ONE}") == [f"{MODEL}: serves {ONE}, as in git"]
    assert run_audit(monkeypatch, wanted=None, served=None) == []


@pytest.mark.parametrize(
    ("wanted", "served", "expected"),
    [
        (ONE, OTHER, f"- {MODEL}: git names {ONE}, but dev serves {OTHER}"),
        (None, OTHER, f"- {MODEL}: git names no bundle, but dev serves {OTHER}"),
        (ONE, f"{OTHER} {ONE}", f"- {MODEL}: git names {ONE}, but dev serves {ONE} and {OTHER}"),
        (ONE, None, f"- {MODEL}: git names {ONE}, but the endpoint failed: it does not answer"),
    ],
)
def test_every_difference_in_bundles_and_infrastructure_is_listed(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, served: str | None, expected: str
) -> None:
    with pytest.raises(MlopsError) as caught:
        run_audit(monkeypatch, wanted=wanted, served=served, drift=("bucket lake: missing",))
    assert caught.value.what == f"dev differs from git:\n- bucket lake: missing\n{expected}"
    assert "find out who changed it" in caught.value.fix
