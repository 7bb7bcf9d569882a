"""Each rule accepts a compliant graph and reports violating graphs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infra.policies import RULES, UNKNOWN, PlannedResource, Rule, violations
from infra.policies.resource_graph import Graph
from tests.infra.policies.examples import (
    BUCKET,
    BUCKETS,
    CLUSTER,
    ENCRYPTION,
    EXAMPLES,
    FEDERATED_ROLES,
    KEYS,
    NAMESPACE,
    REPOSITORIES,
    ROLE,
    ROLE_POLICY,
    ROLES,
    VERSIONING,
    Resources,
    component,
    document,
    drop,
    put,
    resource,
    unprotected,
)

BY_ID = {rule.id: rule for rule in RULES}


def found(resources: Resources, rule: Rule) -> list[str]:
    return [str(violation) for violation in violations(resources, [rule])]


def test_every_rule_has_a_compliant_and_a_violating_example() -> None:
    assert set(EXAMPLES) == set(BY_ID)
    assert all(example.keeps and example.breaks for example in EXAMPLES.values())


def test_rules_have_unique_ids_and_titles_that_are_claims() -> None:
    assert len(BY_ID) == len(RULES)
    assert all(rule.title[0].isupper() and not rule.title.endswith(".") for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_accepts_a_compliant_graph(rule: Rule) -> None:
    assert found(EXAMPLES[rule.id].keeps, rule) == []


@pytest.mark.parametrize(
    ("rule", "index"), [(rule, i) for rule in RULES for i in range(len(EXAMPLES[rule.id].breaks))],
    ids=lambda value: value.id if isinstance(value, Rule) else str(value),
)  # fmt: skip
def test_a_rule_reports_a_violating_graph(rule: Rule, index: int) -> None:
    broken = EXAMPLES[rule.id].breaks[index]
    assert found(broken, rule)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_violation_names_the_rule_and_a_resource_of_the_graph(rule: Rule) -> None:
    broken = EXAMPLES[rule.id].breaks[0]
    for violation in violations(broken, [rule]):
        assert violation.rule == rule.id
        assert violation.urn in {resource.urn for resource in broken}
        assert violation.found in str(violation)


@pytest.mark.parametrize("graph", [BUCKETS, REPOSITORIES, KEYS, ROLES, FEDERATED_ROLES, CLUSTER])
def test_an_example_that_complies_with_one_rule_complies_with_all(graph: Resources) -> None:
    assert [str(violation) for violation in violations(graph)] == []


def test_an_exemption_applies_to_one_rule_and_one_component() -> None:
    broken = drop(BUCKETS, VERSIONING)
    exempt = [component(exemptions={"s3-versioned": "objects are copies"}), *broken[1:]]
    assert violations(broken, [BY_ID["s3-versioned"]])
    assert violations(exempt) == []
    elsewhere = [component(), PlannedResource("mlops:test:Other", "other", "urn:other", exempt[0].props), *broken[1:]]
    assert [violation.rule for violation in violations(elsewhere)] == ["s3-versioned"]
    others = violations(drop(exempt, ENCRYPTION))
    assert [violation.rule for violation in others] == ["s3-encrypted-with-customer-key"]


@pytest.mark.parametrize("type_", [BUCKET, NAMESPACE, "pulumi:pulumi:Stack"])
def test_only_a_component_can_exempt(type_: str) -> None:
    reasons = {"exemptions": {"s3-versioned": "objects are copies"}}
    broken = drop(BUCKETS, VERSIONING)
    claiming = PlannedResource(type_, "claiming", "urn:claiming", reasons)
    below = [replace(one, parent=claiming.urn) if one.type == BUCKET else one for one in broken]
    assert "s3-versioned" in {violation.rule for violation in violations([claiming, *below])}


def test_a_policy_that_a_refreshed_role_lists_has_the_exemption_of_its_own_resource() -> None:
    escalates = document({"Effect": "Allow", "Action": "s3:PutBucketPolicy", "Resource": "arn:aws:s3:::b"})
    rule = BY_ID["iam-no-escalation"]
    role = resource(ROLE, {"name": "r", "inlinePolicies": [{"name": "access", "policy": escalates}]})
    policy = resource(ROLE_POLICY, {"role": "r", "name": "access", "policy": escalates})
    exempt = PlannedResource("mlops:test:Access", "a", "urn:access", {"exemptions": {rule.id: "capped"}})
    below = replace(policy, parent=exempt.urn)
    assert len(violations([component(), role, policy], [rule])) == 1
    assert violations([component(), role, exempt, below], [rule]) == []
    other = replace(below, props={**below.props, "name": "other"})
    assert [one.urn for one in violations([component(), role, exempt, other], [rule])] == [role.urn]
    changed = replace(below, props={**below.props, "policy": document()})
    assert violations([component(), role, exempt, changed], [rule]) == []


def test_only_a_disposable_environment_may_be_deleted() -> None:
    careless = unprotected(put(BUCKETS, BUCKET, "forceDestroy", value=True))
    assert {v.rule for v in violations(careless)} == {"s3-kept", "state-protected"}
    assert violations(put(careless, BUCKET, "tags", "disposable", value="true")) == []


def test_a_graph_with_mixed_disposable_tags_is_not_disposable() -> None:
    mixed = [*put(BUCKETS, BUCKET, "tags", "disposable", value="true"), *KEYS[1:]]
    assert not Graph(mixed).disposable


PULUMI_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


@pytest.mark.parametrize("unknown", [UNKNOWN, PULUMI_UNKNOWN, object()], ids=["ours", "pulumi's", "an engine's"])
def test_unknown_values_break_no_rule(unknown: object) -> None:
    for graph in (BUCKETS, REPOSITORIES, KEYS, ROLES, FEDERATED_ROLES, CLUSTER):
        for whole in graph:
            for name in whole.props:
                hidden = replace(whole, props={**whole.props, name: unknown})
                seen = [hidden if one is whole else one for one in graph]
                assert [str(violation) for violation in violations(seen)] == [], f"{whole.type}.{name}"


def test_known_values_are_checked_although_others_are_unknown() -> None:
    hidden = put(BUCKETS, BUCKET, "bucket", value=UNKNOWN)
    assert violations(hidden) == []
    broken = put(put(hidden, VERSIONING, "bucket", value=UNKNOWN), VERSIONING, "versioningConfiguration",
                 value={"status": "Suspended"})  # fmt: skip
    assert [violation.rule for violation in violations(broken)] == ["s3-versioned"]


def test_an_unreadable_policy_breaks_a_rule() -> None:
    unread = put(ROLES, ROLE_POLICY, "policy", value="{")
    assert "iam-not-everything" in {violation.rule for violation in violations(unread)}
