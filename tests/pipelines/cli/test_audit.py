"""What an audit says, whatever it finds: the infrastructure and the endpoints are stood in for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from pipelines.cli import promote
from pipelines.cli.promote import audit
from pipelines.declarations.errors import MlopsError
from tests.pipelines.promotion.promotion_project import MODEL

ONE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def audited(patch: pytest.MonkeyPatch, *, wanted: str | None, served: str | None, drift: tuple[str, ...] = ()) -> str:
    """What an audit prints or raises, where git wants one bundle and another is served; None: nothing is up."""

    @contextmanager
    def connected(_descriptor: object, _model: str) -> Iterator[SimpleNamespace]:
        if served is None:
            raise MlopsError("it does not answer")
        yield SimpleNamespace(served=lambda: served)

    target = SimpleNamespace(
        project=SimpleNamespace(model_names=(MODEL,), release=lambda *_: SimpleNamespace(bundle=wanted)),
        descriptor=lambda _: SimpleNamespace(endpoints={MODEL: "http://x"} if served else {}),
        drift=lambda _: list(drift),
    )
    patch.setattr(promote, "open_target", lambda _: target)
    patch.setattr("pipelines.serving.probe.open_endpoint", connected)
    done = CliRunner().invoke(audit, ["--env", "dev"])
    return str(done.exception) if done.exception else done.output


def test_what_is_as_git_says_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert audited(monkeypatch, wanted=ONE, served=ONE).endswith(f"{ONE}, as git says\ndev is as git says.\n")
    assert audited(monkeypatch, wanted=None, served=None) == "dev is as git says.\n"


@pytest.mark.parametrize(
    ("wanted", "served", "said"),
    [
        (ONE, OTHER, f"- {MODEL}: dev serves {OTHER}, git says {ONE}"),
        (None, OTHER, f"- {MODEL}: dev serves {OTHER}, git says nothing"),
        (ONE, None, f"- {MODEL}: git says {ONE}, and what dev serves is not known: it does not answer"),
    ],
)
def test_another_bundle_or_none_is_named_beside_everything_else_that_differs(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, served: str | None, said: str
) -> None:
    found = audited(monkeypatch, wanted=wanted, served=served, drift=("bucket lake: gone at the target",))
    assert found.startswith(f"dev is not as git says:\n- bucket lake: gone at the target\n{said}\n")
    assert "find out who changed it" in found
