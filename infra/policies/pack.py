"""The rules as a Pulumi policy pack: one mandatory stack policy per rule."""

from __future__ import annotations

from collections.abc import Iterable

from pulumi_policy import EnforcementLevel, PolicyResource, ReportViolation, StackValidationArgs, StackValidationPolicy

from infra.policies import RULES, PlannedResource, Rule, violations


def policies(rules: Iterable[Rule] = RULES) -> list[StackValidationPolicy]:
    """Return a mandatory policy for each rule."""
    return [_policy(rule) for rule in rules]


def _policy(rule: Rule) -> StackValidationPolicy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        for violation in violations([_planned(resource) for resource in args.resources], [rule]):
            report(f"{violation.resource}: {violation.found}", violation.urn)

    checks = f" ({', '.join(rule.checkov)})" if rule.checkov else ""
    return StackValidationPolicy(
        name=rule.id,
        description=f"{rule.title}{checks}.",
        validate=validate,
        enforcement_level=EnforcementLevel.MANDATORY,
    )


def _planned(resource: PolicyResource) -> PlannedResource:
    return PlannedResource(
        type=resource.resource_type,
        name=resource.name,
        urn=resource.urn,
        props=resource.props,
        protect=resource.opts.protect,
        parent=resource.parent.urn if resource.parent else "",
    )
