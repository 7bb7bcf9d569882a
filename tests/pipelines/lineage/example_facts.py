"""Made-up facts of lineage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.lineage.facts import BundleFact, LineageFacts, PredictionFact, ReleaseFact, VersionFact

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def version(number: int, *, age: int = 0, **fields: Any) -> VersionFact:
    values = {
        "environment": "dev",
        "dataset": "visits",
        "snapshot": str(number),
        "parent": str(number - 1) if number > 1 else None,
        "at": NOW - timedelta(days=age),
        "rows": number * 10,
        "file": f"{number}.csv",
        "batch": digest(number),
        "contract": "1.0.0",
    }
    return VersionFact(**{**values, **fields})


def bundle(number: int, *, snapshot: int, age: int | None = 0, **fields: Any) -> BundleFact:
    values = {
        "environment": "dev",
        "model": "price",
        "digest": digest(number),
        "dataset": "visits",
        "snapshot": str(snapshot),
        "rows": snapshot * 10,
        "features": ("age", "size"),
        "commit": f"{number:040x}",
        "run": f"run-{number}",
        "trained": NOW - timedelta(days=age) if age is not None else None,
    }
    return BundleFact(**{**values, **fields})


def release(number: int, bundle: int | None, *, ended: int | None = None, age: int = 0, **fields: Any) -> ReleaseFact:
    values = {
        "environment": "prod",
        "model": "price",
        "number": number,
        "bundle": digest(bundle) if bundle is not None else None,
        "ended": digest(ended) if ended is not None else None,
        "at": NOW - timedelta(days=age),
        "action": "promotion",
        "is_live": False,
    }
    return ReleaseFact(**{**values, **fields})


def prediction(number: int, bundle: int, *, age: int = 0, **fields: Any) -> PredictionFact:
    values = {
        "environment": "prod",
        "model": "price",
        "snapshot": str(1000 + number),
        "at": NOW - timedelta(days=age),
        "rows": number,
        "bundle": digest(bundle),
    }
    return PredictionFact(**{**values, **fields})


def facts(*every: VersionFact | BundleFact | ReleaseFact | PredictionFact, **fields: Any) -> LineageFacts:
    return LineageFacts(
        gathered=NOW,
        versions=tuple(each for each in every if isinstance(each, VersionFact)),
        bundles=tuple(each for each in every if isinstance(each, BundleFact)),
        releases=tuple(each for each in every if isinstance(each, ReleaseFact)),
        predictions=tuple(each for each in every if isinstance(each, PredictionFact)),
        **fields,
    )
