"""Gate: the image has no known vulnerability of a severity that the environment refuses."""

from __future__ import annotations

from typing import get_args

from pipelines.declarations.environment import Severity
from pipelines.declarations.plurals import counted
from pipelines.promotion.facts.pin_facts import PinFacts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed
from pipelines.registry.container_images import SCANNED

SEVERITIES: tuple[str, ...] = get_args(Severity)
"""Severities from the highest to the lowest. ECR's other ones are below them, or not decided yet."""


def vulnerabilities(facts: PinFacts) -> Verdict:
    """Refuse an image with a vulnerability of the declared severity, or without a scan result."""
    if facts.rules is None:
        return inconclusive("vulnerabilities", "unknown", facts.missing("rules"), "fix the environment's configuration")
    refused = SEVERITIES[: SEVERITIES.index(facts.rules.severity) + 1]
    threshold = f"none that is {' or '.join(refused)}"
    if facts.digest is None:
        return passed("vulnerabilities", "no image", threshold, "no image is pinned")
    if not facts.scans:
        why = facts.missing("scans")
        return inconclusive("vulnerabilities", threshold, why, "wait until ECR has scanned the image")
    for architecture, scan in sorted(facts.scans.items()):
        if scan.status not in SCANNED:
            why = f"the scan for {architecture} is {scan.status}"
            return inconclusive("vulnerabilities", threshold, why, "wait until ECR has scanned the image", scan.status)
    accepted = {one.name for one in facts.rules.accepted if facts.now < one.until}
    found = {one.name: one.severity for scan in facts.scans.values() for one in scan.findings}
    bad = sorted(name for name, severity in found.items() if severity in refused and name not in accepted)
    if bad:
        named = ", ".join(f"{name} ({found[name]})" for name in bad[:5]) + (" …" if len(bad) > 5 else "")
        fix = "update the base image or the package, or accept it in image_rules with a reason and a date"
        return failed("vulnerabilities", str(len(bad)), threshold, named, fix)
    tolerated = sorted(accepted & {name for name, severity in found.items() if severity in refused})
    why = f"accepted: {', '.join(tolerated)}" if tolerated else f"{counted(len(found), 'less severe finding')}"
    return passed("vulnerabilities", "none", threshold, why)
