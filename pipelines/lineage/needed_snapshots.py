"""Find the snapshots that bundles and batch predictions still need: live ones, and those within the audit period."""

from __future__ import annotations

from datetime import datetime, timedelta

from pipelines.lineage.facts import LineageFacts


def needed_snapshots(facts: LineageFacts, dataset: str, now: datetime, audit: timedelta) -> dict[str, str]:
    """Return snapshot → why it must stay.

    A bundle needs its snapshot while it is live in any environment, and for the audit period after it was trained or
    last live. A bundle without verified evidence needs it forever, because nobody knows its age. A batch prediction
    needs the snapshot that it read for the audit period.

    Args:
        facts: facts of all environments.
        dataset: name of the dataset.
        now: the current time.
        audit: length of the audit period.
    """
    live: dict[tuple[str, str], list[str]] = {}
    last: dict[tuple[str, str], datetime] = {}
    for release in facts.releases:
        for digest in (release.bundle, release.ended):
            if digest is not None:
                key = (release.model, digest)
                last[key] = max(last.get(key, release.at), release.at)
        if release.is_live and release.bundle is not None:
            live.setdefault((release.model, release.bundle), []).append(release.environment)
    needed: dict[str, str] = {}
    reasons: list[tuple[int, str, str]] = []
    for bundle in facts.bundles:
        if bundle.dataset != dataset:
            continue
        key, name = (bundle.model, bundle.digest), f"{bundle.model} {bundle.digest[:19]}…"
        if key in live:
            reasons.append((0, bundle.snapshot, f"{name} is live in {' and '.join(live[key])}"))
        elif bundle.trained is None:
            reasons.append((1, bundle.snapshot, f"{name} has no verified evidence of its age"))
        else:
            used = max(bundle.trained, last.get(key, bundle.trained))
            if now - used < audit:
                what = "was live" if key in last else "was trained"
                reasons.append((2, bundle.snapshot, f"{name} {what} within the last {audit.days} days"))
    for prediction in facts.predictions:
        if prediction.dataset == dataset and prediction.read is not None and now - prediction.at < audit:
            name = f"a batch prediction of {prediction.model} in {prediction.environment}"
            reasons.append((2, prediction.read, f"{name} read it within the last {audit.days} days"))
    for _, snapshot, reason in sorted(reasons):
        needed.setdefault(snapshot, reason)
    return needed
