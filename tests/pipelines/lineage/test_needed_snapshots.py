from __future__ import annotations

from datetime import timedelta

from pipelines.lineage.needed_snapshots import needed_snapshots
from tests.pipelines.lineage.example_facts import NOW, bundle, facts, prediction, release

AUDIT = timedelta(days=400)


def test_a_live_bundle_needs_its_snapshot_however_old_it_is() -> None:
    known = facts(bundle(1, snapshot=1, age=2000), release(1, 1, age=2000, is_live=True))
    assert needed_snapshots(known, "visits", NOW, AUDIT) == {
        "1": "price sha256:000000000000… is live in prod",
    }
    assert needed_snapshots(known, "orders", NOW, AUDIT) == {}


def test_a_bundle_needs_its_snapshot_for_the_audit_period_after_it_was_last_live() -> None:
    known = facts(
        bundle(1, snapshot=1, age=2000),
        bundle(2, snapshot=2, age=2000),
        release(1, 1, age=1900),
        release(2, 2, ended=1, age=399, is_live=True),
    )
    found = needed_snapshots(known, "visits", NOW, AUDIT)
    assert found["1"] == "price sha256:000000000000… was live within the last 400 days"
    assert "1" not in needed_snapshots(known, "visits", NOW, timedelta(days=399))


def test_a_bundle_that_was_never_released_needs_its_snapshot_for_the_audit_period() -> None:
    known = facts(bundle(1, snapshot=1, age=399), bundle(2, snapshot=2, age=400))
    assert list(needed_snapshots(known, "visits", NOW, AUDIT)) == ["1"]


def test_a_bundle_of_unknown_age_keeps_its_snapshot() -> None:
    found = needed_snapshots(facts(bundle(1, snapshot=1, age=None)), "visits", NOW, AUDIT)
    assert found == {"1": "price sha256:000000000000… has no verified evidence of its age"}


def test_a_version_that_a_recent_prediction_read_is_kept_for_the_audit_period() -> None:
    known = facts(
        prediction(1, 1, age=10, dataset="visits", read="5"), prediction(2, 1, age=500, dataset="visits", read="6")
    )
    needed = needed_snapshots(known, "visits", NOW, timedelta(days=400))
    assert needed == {"5": "a batch prediction of price in prod read it within the last 400 days"}
