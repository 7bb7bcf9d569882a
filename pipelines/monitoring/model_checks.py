"""Checks of a model in operation that need no labels and no baseline. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pipelines.monitoring.monitor_findings import MonitorFinding, MonitorVerdict

SLOW_SHARE = 0.01
"""Share of requests that may be slower than the budget of a 99th percentile."""

CONFIDENCE = 0.95


LOST_SHARE = 0.01
"""Share of lost records of the log from which the other checks may be misled."""


def judge_traffic(rows: int, minimum_rows: int, sample: float = 1.0) -> MonitorFinding:
    """Judge if there were enough requests. Too few are unknown: nothing else can be said, either.

    Args:
        rows: predicted rows in the log.
        minimum_rows: rows without which nothing can be said.
        sample: share of the requests that the log holds.
    """
    enough = rows >= minimum_rows
    of_sample = f" in the logged sample of {sample:.3g} of the requests" if sample < 1 else ""
    return MonitorFinding(
        check="traffic",
        verdict="ok" if enough else "unknown",
        figure=float(rows),
        unit="rows",
        rows=rows,
        reason=(f"{rows:,} rows were predicted" if enough else f"{rows:,} of at least {minimum_rows:,} predicted rows")
        + of_sample,
    )


def judge_lost(lost: int, logged: int) -> list[MonitorFinding]:
    """Judge the records that servers could not write to the log. What is lost, no other check sees.

    Args:
        lost: records that were lost.
        logged: records that were written.
    """
    if not lost:
        return []
    share = lost / (lost + logged)
    return [
        MonitorFinding(
            check="traffic",
            subject="lost records",
            verdict="alarm" if share >= LOST_SHARE else "watch",
            figure=100 * share,
            threshold=100 * LOST_SHARE,
            unit="%",
            rows=lost + logged,
            reason=f"{lost:,} of {lost + logged:,} records of the log were lost; other checks do not see them",
        )
    ]


def judge_not_logged(names: Sequence[str]) -> list[MonitorFinding]:
    """Report features that cannot be checked, because their values are personal and are not logged."""
    if not names:
        return []
    reason = "not logged: the contract classifies it as personal"
    if len(names) > 1:
        reason = "not logged: the contract classifies them as personal"
    return [
        MonitorFinding(check=check, subject=", ".join(names), verdict="unknown", reason=reason)
        for check in ("input-quality", "input-drift")
    ]


def judge_log(unreadable: int, future: int) -> list[MonitorFinding]:
    """Report lines of the log that are broken or dated in the future."""
    found = []
    for subject, number, reason in (
        ("unreadable records", unreadable, "of the inference log cannot be read"),
        ("clock", future, "are dated more than five minutes in the future: clocks differ"),
    ):
        if number:
            found.append(
                MonitorFinding(
                    check="traffic",
                    subject=subject,
                    verdict="watch",
                    figure=float(number),
                    unit="requests",
                    reason=f"{number:,} records {reason}",
                )
            )
    return found


def judge_errors(errors: int, requests: int, allowed: float, minimum_rows: int) -> MonitorFinding:
    """Judge the share of server errors.

    An alarm needs the whole interval beyond the allowed share, so that one error of few requests is none.

    Args:
        errors: requests that ended in a server error.
        requests: all requests.
        allowed: the share that the gate `soak` allows.
        minimum_rows: requests without which no error share is `ok`.
    """
    if not requests:
        return MonitorFinding(check="errors", verdict="unknown", reason="no requests")
    low, share = _at_least(errors, requests), errors / requests
    verdict: MonitorVerdict = "ok"
    if low > allowed:
        verdict = "alarm"
    elif share > allowed:
        verdict = "watch"
    elif requests < minimum_rows:
        verdict = "unknown"
    return MonitorFinding(
        check="errors",
        verdict=verdict,
        figure=100 * share,
        threshold=100 * allowed,
        unit="%",
        rows=requests,
        reason=f"{errors:,} of {requests:,} requests ended in a server error; the rate is at least {low:.2%}",
    )


def _at_least(events: int, of: int) -> float:
    """Return the lower end of the exact interval of a share (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    return float(betaincinv(events, of - events + 1, (1 - CONFIDENCE) / 2)) if events else 0.0


def judge_latency(
    buckets: Sequence[int], bounds: Sequence[float], budget_ms: float, minimum_rows: int
) -> MonitorFinding:
    """Judge the latency in the serving process against the budget of its 99th percentile.

    Only requests that are certainly slower count: those in buckets that begin at the budget or above.

    Args:
        buckets: requests in each bucket, one more than `bounds`.
        bounds: upper bounds of the buckets, in seconds.
        budget_ms: the budget, in milliseconds.
        minimum_rows: requests without which the latency is unknown.
    """
    requests = sum(buckets)
    if requests < minimum_rows:
        reason = f"{requests:,} of at least {minimum_rows:,} requests with a latency, golden ones included"
        return MonitorFinding(check="latency", verdict="unknown", rows=requests, reason=reason)
    slow = sum(number for lower, number in zip((0.0, *bounds), buckets, strict=True) if lower * 1000 >= budget_ms)
    share, low = slow / requests, _at_least(slow, requests)
    verdict: MonitorVerdict = "alarm" if low > SLOW_SHARE else "watch" if share > SLOW_SHARE else "ok"
    counted, percentile = 0, "more than every bound"
    for bound, number in zip(bounds, buckets, strict=False):
        counted += number
        if counted >= 0.99 * requests:
            percentile = f"at most {bound * 1000:g} ms"
            break
    return MonitorFinding(
        check="latency",
        verdict=verdict,
        figure=100 * share,
        threshold=100 * SLOW_SHARE,
        unit="%",
        rows=requests,
        reason=f"{share:.2%} of the requests took longer than {budget_ms:g} ms; the 99th percentile is {percentile}",
    )


def judge_served_bundle(live: str, since: datetime, recent: Mapping[str, int], newest: Mapping[str, int]) -> (
    MonitorFinding
):  # fmt: skip
    """Judge which bundles answered since the live one went live.

    Args:
        live: digest of the bundle that the ledger records as live.
        since: when it went live, with a grace period.
        recent: bundle → requests since then.
        newest: bundle → time of its newest request, in milliseconds since the epoch.
    """
    total, others = sum(recent.values()), {each: n for each, n in recent.items() if each != live and n}
    if not total:
        reason = f"no requests; they are counted from {since:%Y-%m-%d %H:%M} UTC on, after the pods have changed"
        return MonitorFinding(check="served-bundle", verdict="unknown", reason=reason)
    share = sum(others.values()) / total
    named = ", ".join(f"{each.removeprefix('sha256:')[:12]} {number:,}" for each, number in sorted(others.items()))
    if not others:
        verdict: MonitorVerdict = "ok"
        reason = f"all {total:,} requests were answered by the live bundle"
    elif max(recent, key=lambda each: (newest.get(each, 0), recent[each])) != live and share > 0.5:
        verdict, reason = "alarm", f"most requests are answered by bundles that the ledger does not record: {named}"
    else:
        verdict, reason = "watch", f"other bundles answered, such as a release on trial: {named}"
    return MonitorFinding(
        check="served-bundle",
        verdict=verdict,
        figure=100 * share,
        threshold=50.0,
        unit="%",
        rows=total,
        reason=reason,
    )
