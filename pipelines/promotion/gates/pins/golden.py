"""Gate: the bundles that are live predict the same with the image."""

from __future__ import annotations

from pipelines.declarations.plurals import counted
from pipelines.promotion.facts.pin_facts import PinFacts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def golden(facts: PinFacts) -> Verdict:
    """Refuse a serving image with which a live bundle does not load, or predicts something else."""
    threshold = "golden predictions of live bundles"
    if facts.image != "serving" or facts.digest is None:
        return passed("golden", "not served", threshold, f"{facts.environment} serves nothing with it")
    if facts.live is None:
        return inconclusive("golden", threshold, facts.missing("live"), "make the environment reachable")
    if facts.trials is None:
        return inconclusive("golden", threshold, facts.missing("trials"), "run the gates again")
    for model in sorted(facts.live):
        trial = facts.trials.get(model)
        if trial is None or trial.rows == 0:
            why = f"no golden prediction of {model} was compared" + (f": {trial.problem}" if trial else "")
            return inconclusive("golden", threshold, why, "run the gates again", "0 golden rows")
        if trial.problem:
            fix = "train the model again with this version, or build an image that serves it"
            return failed("golden", "differs", threshold, f"{model}: {trial.problem}", fix)
    if not facts.live:
        return passed("golden", "none live", threshold, f"{facts.environment} serves no bundle yet")
    rows = sum(facts.trials[model].rows for model in facts.live)
    why = f"{counted(rows, 'golden row')} match"
    return passed("golden", counted(len(facts.live), "bundle"), threshold, why)
