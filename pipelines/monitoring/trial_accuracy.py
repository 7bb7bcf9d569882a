"""Compare the accuracy of a release on trial with that of the live bundle, as far as labels have arrived.

Pure functions. The test is sequential, so a monitor may repeat it as often as it runs while the trial lasts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.declarations.model_monitoring import ModelCheck, ModelMonitoring
from pipelines.monitoring.monitor_findings import MonitorFinding, MonitorVerdict

TRIAL_CHECK: ModelCheck = "trial-accuracy"

ALPHA = 0.05
"""Bound of the share of good releases that are an alarm at any time of their trial."""

LAST_REQUEST_MINUTES = 60
"""A bundle that has answered nothing for longer is no longer on trial."""

_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_HOUR = 3_600_000
_ODDS = np.geomspace(1.1, 20, 24)
"""How many times as likely wrong predictions of the release on trial may be: what the test looks for."""


@dataclass(frozen=True)
class JudgedRows:
    """Labelled rows of one bundle.

    Attributes:
        times: time of the request of each row, in milliseconds since the epoch.
        wrong: True for each row whose prediction is wrong.
    """

    times: NDArray[np.int64]
    wrong: NDArray[np.bool_]

    def since(self, time: int) -> JudgedRows:
        """Return the rows of requests from a time on."""
        chosen = self.times >= time
        return JudgedRows(self.times[chosen], self.wrong[chosen])

    @property
    def right(self) -> float:
        """Share of the rows whose prediction is right; 1 without rows."""
        return 1.0 - float(self.wrong.mean()) if len(self.wrong) else 1.0


def bundle_on_trial(newest: Mapping[str, int], recent: Mapping[str, int], live: str, now: int) -> str | None:
    """Return the bundle that is on trial: of those that answered lately, the one with most requests.

    Args:
        newest: bundle → time of its newest request, in milliseconds since the epoch.
        recent: bundle → requests since the live bundle went live.
        live: the live bundle.
        now: the present time, in milliseconds since the epoch.
    """
    others = [
        bundle
        for bundle, requests in recent.items()
        if bundle != live
        and requests
        and _DIGEST.fullmatch(bundle)
        and newest.get(bundle, 0) >= now - LAST_REQUEST_MINUTES * 60_000
    ]
    return max(others, key=lambda bundle: (recent[bundle], bundle), default=None)


def judge_trial(trial: JudgedRows, live: JudgedRows, settings: ModelMonitoring) -> MonitorFinding:
    """Judge a release on trial by labelled rows of both bundles from the same time.

    Two keys: wrong predictions are more frequent than its share of the labelled rows explains, and the share of right
    ones is lower than that of the live bundle by more than `maximum_loss`.

    Args:
        trial, live: the labelled rows.
        settings: the model's declaration.
    """
    live = live.since(int(trial.times.min()) if len(trial.times) else 0)
    least = min(len(trial.times), len(live.times))
    facts: dict[str, Any] = {"check": TRIAL_CHECK, "rows": len(trial.times)}
    if least < settings.minimum_rows:
        reason = (
            f"{len(trial.times):,} labelled rows of the release on trial and {len(live.times):,} of the live one; "
            f"{settings.minimum_rows:,} of each are needed"
        )
        return MonitorFinding(**facts, verdict="unknown", reason=reason)
    limit = live.right * (1 - settings.maximum_loss)
    evidence = error_evidence(trial, live)
    is_significant, is_worse = evidence >= math.log(1 / ALPHA), trial.right < limit
    verdict: MonitorVerdict = "alarm" if is_significant and is_worse else "watch" if is_significant else "ok"
    return MonitorFinding(
        **facts,
        verdict=verdict,
        figure=trial.right,
        threshold=limit,
        reason=f"{trial.right:.1%} of {len(trial.times):,} labelled predictions of the release on trial are right, "
        f"and {live.right:.1%} of {len(live.times):,} of the live one",
    )


def error_evidence(trial: JudgedRows, live: JudgedRows) -> float:
    """Return the evidence that wrong predictions of a release on trial are more frequent than those of the live bundle.

    Each wrong prediction of an hour is one of the release on trial with the probability of its share of that hour's
    labelled rows, if it is as good. So neither another weight nor harder requests in other hours are evidence. For each
    of some greater odds, the likelihood ratio is an e-value; so is their mean.

    Returns:
        The natural logarithm of the e-value.
    """
    hours = np.concatenate([trial.times, live.times]) // _HOUR
    _, at = np.unique(hours, return_inverse=True)
    number = int(at.max()) + 1 if len(at) else 0
    ours, theirs = at[: len(trial.times)], at[len(trial.times) :]
    rows, others = np.bincount(ours, minlength=number), np.bincount(theirs, minlength=number)
    wrong = np.bincount(ours, weights=trial.wrong, minlength=number)
    errors = wrong + np.bincount(theirs, weights=live.wrong, minlength=number)
    share = rows / np.maximum(rows + others, 1)
    odds = _ODDS[:, None]
    ratios = (wrong * np.log(odds) - errors * np.log1p(share * (odds - 1))).sum(axis=1)
    return float(np.logaddexp.reduce(ratios) - math.log(len(_ODDS)))
