"""Audits, with a fake target and a fake endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.promotion.audit import audit
from pipelines.promotion.disagreement import SYNC
from pipelines.registry.ledger import BrokenLedgerError, Entry, Event, new_attempt, verify_chain
from tests.clones import commit_all, git, make_repository
from tests.pipelines.promotion.promotion_project import MODEL
from tests.pipelines.registry.chains import MODEL as PRICE
from tests.pipelines.registry.chains import chain_of, offline_environment, verified

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ONE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def entries(*events: Event) -> list[Entry]:
    """Return a ledger with these events, newest first."""
    return verify_chain(chain_of(events), offline_environment(), PRICE)[::-1]


def event(result: str, to: str, live: str | None, action: str = "promotion", **changes: object) -> Event:
    found = verified(1, result=result, action=action, before=None, to=to, live=live, attempt=new_attempt(), **changes)
    return found.model_copy(update={"at": NOON})


def run_audit(
    patch: pytest.MonkeyPatch,
    *,
    wanted: str | None,
    served: str | None,
    drift: tuple[str, ...] = (),
    ledger: Sequence[Entry] = (),
    broken: str = "",
    root: Path = Path("/nonexistent"),
) -> list[str]:
    """Audit dev, where git names `wanted` and the pods serve `served` (None: they are not up); return the log."""

    def running(_descriptor: object, _model: str) -> set[str]:
        if served is None:
            raise MlopsError("no pod is ready", fix="look at its pods")
        return set(served.split())

    def check_ledger(*_: object) -> None:
        if broken:
            raise BrokenLedgerError(broken, fix="find out who did it")

    descriptor = SimpleNamespace(endpoints={MODEL: "http://x"} if served else {})
    target: Any = SimpleNamespace(
        project=SimpleNamespace(root=root, model_names=(MODEL,), release=lambda *_: SimpleNamespace(bundle=wanted)),
        is_up=lambda _: True,
        descriptors=lambda: {"dev": descriptor},
        drift=lambda _: list(drift),
    )
    patch.setattr("pipelines.promotion.audit.running_bundles", running)
    patch.setattr("pipelines.promotion.audit.check_ledger", check_ledger)
    patch.setattr("pipelines.promotion.audit.Ledger", lambda *_: SimpleNamespace(back=lambda: iter(ledger)))
    lines: list[str] = []
    assert audit(target, "dev", lines.append)
    return lines


def test_an_environment_that_was_never_brought_up_is_skipped() -> None:
    target: Any = SimpleNamespace(is_up=lambda _: False)
    lines: list[str] = []
    assert not audit(target, "staging", lines.append)
    assert lines == ["staging was never brought up: skipped"]


def test_an_environment_that_matches_git_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run_audit(monkeypatch, wanted=ONE, served=f"{ONE} {ONE}", ledger=entries(event("verified", ONE, ONE)))
    assert found == [f"{MODEL}: serves {ONE}, as in git"]
    assert run_audit(monkeypatch, wanted=None, served=None) == []


def test_a_record_with_a_false_date_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    (live,) = entries(event("verified", ONE, ONE))
    ledger = [replace(live, stored=NOON - timedelta(days=400))]
    with pytest.raises(MlopsError) as caught:
        run_audit(monkeypatch, wanted=ONE, served=ONE, ledger=ledger)
    assert "- record 1 of price in dev is dated 2026-03-02 12:00:00 UTC, but was stored at 2025-01-26 " in (
        caught.value.what
    )
    assert "docs/on-call.md#a-record-has-a-false-date" in caught.value.what


@pytest.mark.parametrize(
    ("ledger", "why"),
    [
        ((), "the ledger records no bundle as live; no deployment of it is recorded"),
        (
            (event("failed", ONE, None, reason="its load balancer is not there yet"),),
            "the ledger records no bundle as live; its deployment of 2026-03-02 12:00 UTC failed: its load balancer is "
            "not there yet (record 1)",
        ),
    ],
)
def test_a_release_that_is_served_but_was_never_verified_is_listed(
    monkeypatch: pytest.MonkeyPatch, ledger: tuple[Event, ...], why: str
) -> None:
    with pytest.raises(MlopsError) as caught:
        run_audit(monkeypatch, wanted=ONE, served=ONE, ledger=entries(*ledger))
    assert (
        f"- {MODEL}: dev serves {ONE}, as in git, but {why}; fix: run the workflow deploy for dev" in caught.value.what
    )


LIVE = event("verified", OTHER, OTHER)
REFUSED = event("refused", ONE, OTHER, reason="champion: it is worse")
AGREE = f"release another bundle, or run mlops propose {MODEL} --env dev --live ({SYNC})"


@pytest.mark.parametrize(
    ("wanted", "served", "ledger", "expected"),
    [
        (
            ONE,
            OTHER,
            entries(LIVE, REFUSED),
            f"git names {ONE}, but dev serves {OTHER}; its deployment of 2026-03-02 12:00 UTC was refused by champion: "
            f"it is worse (record 2); fix: {AGREE}",
        ),
        (
            ONE,
            OTHER,
            entries(LIVE, event("failed", ONE, OTHER, reason="no node")),
            f"git names {ONE}, but dev serves {OTHER}; its deployment of 2026-03-02 12:00 UTC failed: no node (record "
            f"2); fix: {AGREE}",
        ),
        (
            ONE,
            OTHER,
            entries(LIVE),
            f"git names {ONE}, but dev serves {OTHER}; no deployment of {ONE} is recorded; fix: run the workflow "
            "deploy for dev",
        ),
        (
            OTHER,
            ONE,
            entries(LIVE),
            f"git names {OTHER}, but dev serves {ONE}; the ledger records {OTHER} as live; fix: find out who changed "
            f"it ({SYNC})",
        ),
        (
            ONE,
            OTHER,
            entries(REFUSED, event("verified", ONE, ONE)),
            f"git names {ONE}, but dev serves {OTHER}; the ledger records {ONE} as live; fix: find out who changed it "
            f"({SYNC})",
        ),
        (
            None,
            OTHER,
            entries(LIVE),
            f"git names no bundle, but dev serves {OTHER}; no withdrawal is recorded; fix: run mlops withdraw {MODEL} "
            f"--env dev, or {AGREE}",
        ),
        (
            None,
            ONE,
            entries(event("failed", ONE, None, reason="no node")),
            f"git names no bundle, but dev serves {ONE}; no deployment of the change is recorded; fix: run the "
            "workflow deploy for dev",
        ),
        (
            ONE,
            None,
            entries(LIVE, REFUSED),
            f"git names {ONE}, but the endpoint failed: no pod is ready; its deployment of 2026-03-02 12:00 UTC was "
            "refused by champion: it is worse (record 2); look at its pods",
        ),
        (ONE, None, (), f"git names {ONE}, but the endpoint failed: no pod is ready; look at its pods"),
    ],
)
def test_a_difference_is_listed_with_its_reason_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, served: str | None, ledger: list[Entry], expected: str
) -> None:
    with pytest.raises(MlopsError) as caught:
        run_audit(monkeypatch, wanted=wanted, served=served, ledger=ledger)
    assert caught.value.what == f"dev differs from git:\n- {MODEL}: {expected}"


@pytest.mark.parametrize(
    ("ledger", "why", "fix"),
    [
        (entries(LIVE), (), f"find out who changed it ({SYNC})"),
        (
            entries(event("verified", ONE, ONE), event("verified", OTHER, OTHER, "rollback")),
            (
                f"{MODEL}: a rollback moved traffic (record 2 of 2026-03-02 12:00 UTC); the next deployment updates "
                "the state of its Rollout",
            ),
            "run the workflow deploy for dev",
        ),
        (
            entries(LIVE, event("failed", ONE, OTHER)),
            (
                f"{MODEL}: a deployment failed (record 2 of 2026-03-02 12:00 UTC); the next one updates the state of "
                "its Rollout",
            ),
            "run the workflow deploy for dev",
        ),
    ],
)
def test_drift_after_a_rollback_or_a_failure_names_it(
    monkeypatch: pytest.MonkeyPatch, ledger: list[Entry], why: tuple[str, ...], fix: str
) -> None:
    with pytest.raises(MlopsError) as caught:
        run_audit(monkeypatch, wanted=OTHER, served=OTHER, drift=("Rollout x: drifted",), ledger=ledger)
    lines = ["Rollout x: drifted", *why]
    assert caught.value.what == "dev differs from git:\n" + "\n".join(f"- {line}" for line in lines)
    assert caught.value.fix == fix


def test_a_broken_ledger_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MlopsError, match="a record was deleted; fix: find out who did it"):
        run_audit(monkeypatch, wanted=ONE, served=ONE, broken="a record was deleted")


def test_a_checkout_behind_main_is_the_first_suspect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = make_repository(tmp_path).root
    old = git(root, "rev-parse", "HEAD")
    with pytest.raises(MlopsError) as caught:
        run_audit(monkeypatch, wanted=None, served=ONE, root=root)
    assert "git pull" not in caught.value.fix
    (root / "later").write_text("x")
    commit_all(root, "a release")
    git(root, "reset", "--quiet", "--hard", old)
    with pytest.raises(MlopsError) as caught:
        run_audit(monkeypatch, wanted=None, served=ONE, root=root)
    assert caught.value.fix == "git pull: this checkout is behind main. Then run mlops audit --env dev again"


def test_drift_of_a_release_that_was_refused_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody changed the environment by hand: the program has what the refused release would have created."""
    drift = ("kubernetes:argoproj.io/v1alpha1:Rollout diabetes-progression: create pending",)
    refused = event("refused", ONE, None, reason="soak: too short")
    with pytest.raises(MlopsError) as caught:
        run_audit(monkeypatch, wanted=ONE, served=None, drift=drift, ledger=entries(refused))
    assert f"\n- {MODEL}: what is pending waits for the release that git names\n" in caught.value.what
    assert caught.value.fix == f"do what each line says ({SYNC})"
    with pytest.raises(MlopsError) as caught:
        run_audit(monkeypatch, wanted=None, served=None, drift=drift, ledger=entries(refused))
    assert caught.value.fix == f"find out who changed it ({SYNC})"
