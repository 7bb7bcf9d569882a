"""Compare an environment with git: its infrastructure, its ledgers, and the bundles that its endpoints serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.declarations.errors import MlopsError
from pipelines.github.git import Git
from pipelines.promotion.attempt import Log
from pipelines.promotion.disagreement import (
    SYNC,
    explain_attempt,
    explain_bundle,
    explain_drift,
    explain_unrecorded,
    until_live,
)
from pipelines.promotion.pod_endpoints import running_bundles
from pipelines.registry.ledger import Entry, Ledger, find_false_dates
from pipelines.registry.ledger_witnesses import check_ledger
from pipelines.targets import Target

FALSE_DATE = "find out who wrote it, then release again (docs/on-call.md#a-record-has-a-false-date)"


def audit(target: Target, environment: str, log: Log) -> bool:
    """Compare an environment with git, and check that its ledgers are whole.

    Args:
        target: where the environment lives.
        environment: its name.
        log: receives one line for each endpoint that matches, or that the environment was never brought up.

    Returns:
        False if the environment was never brought up, so there is nothing to compare.

    Raises:
        MlopsError: the environment differs from git, or a ledger is broken; every difference is listed with what to do.
    """
    if not target.is_up(environment):
        log(f"{environment} was never brought up: skipped")
        return False
    descriptors = target.descriptors()
    descriptor = descriptors[environment]
    differences: list[str] = []
    ledgers: dict[str, Sequence[Entry]] = {}
    for model in target.project.model_names:
        try:
            check_ledger(descriptors, environment, model)
            ledgers[model] = list(until_live(Ledger(descriptor, model).back()))
            differences += [f"{said}; fix: {FALSE_DATE}" for said in find_false_dates(reversed(ledgers[model]))]
        except MlopsError as error:  # the other models are still compared
            differences.append(f"{model}: {error.what}; fix: {error.fix}")
    drift = target.drift(environment)
    reasons = [reason for model, entries in ledgers.items() if drift and (reason := explain_drift(entries, model))]
    fix = f"do what each line says ({SYNC})"
    if drift:
        waiting = [model for model, entries in ledgers.items() if _waits(target, environment, model, entries)]
        differences += [*drift, *reasons]
        if reasons:
            fix = f"run the workflow deploy for {environment}"
        elif waiting:  # its release was not applied, so its resources differ from the program
            differences.append(f"{' and '.join(waiting)}: what is pending waits for the release that git names")
        else:
            fix = f"find out who changed it ({SYNC})"
    for model in target.project.model_names:
        wanted = target.project.release(model, environment).bundle
        if wanted is None and model not in descriptor.endpoints:
            continue
        try:
            served = " and ".join(sorted(running_bundles(descriptor, model)))
        except MlopsError as error:
            why = explain_attempt(ledgers.get(model, ()), wanted) if wanted is not None else ""
            parts = (f"git names {wanted or 'no bundle'}, but the endpoint failed: {error.what}", why, error.fix)
            differences.append(f"{model}: {'; '.join(part for part in parts if part)}")
            continue
        if served != wanted:
            why, do = explain_bundle(ledgers.get(model, ()), model, environment, wanted, served)
            found = f"git names {wanted or 'no bundle'}, but {environment} serves {served}"
            differences.append(f"{model}: {found}; {why}; fix: {do}")
        elif model in ledgers and (why := explain_unrecorded(ledgers[model], served)):
            do = f"run the workflow deploy for {environment}"
            differences.append(f"{model}: {environment} serves {served}, as in git, but {why}; fix: {do}")
        else:
            log(f"{model}: serves {served}, as in git")
    if differences:
        if behind_main(target.project.root):
            fix = f"git pull: this checkout is behind main. Then run mlops audit --env {environment} again"
        raise MlopsError(
            f"{environment} differs from git:\n" + "\n".join(f"- {difference}" for difference in differences),
            fix=fix,
        )
    return True


def _waits(target: Target, environment: str, model: str, entries: Sequence[Entry]) -> bool:
    """Return whether the deployment of the release that git names was refused or failed."""
    wanted = target.project.release(model, environment).bundle
    return wanted is not None and bool(explain_attempt(entries, wanted))


def behind_main(root: Path) -> bool:
    """Return whether the origin's main has commits that a checkout lacks; False if the origin cannot be asked."""
    git = Git(root)
    try:
        main = git.fetch("main")
        return main is not None and main != git.head() and git.merge_base(main, "HEAD") == git.head()
    except MlopsError:
        return False
