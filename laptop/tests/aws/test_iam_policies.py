"""Tests of policy evaluation: cases of IAM's documentation, and properties of every policy."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laptop.aws.access.policy import Caller, Grants, Need, matches, refusal
from laptop.aws.access.policy import _holds as holds

ROLE = "arn:aws:iam::1:role/r"
CALLER = Caller("arn:aws:sts::1:assumed-role/r/s", frozenset({ROLE}), "1")
NEED = Need("s3:GetObject", "arn:aws:s3:::b/k")


def allowed(*statements: dict[str, Any], need: Need = NEED, context: Any = None) -> bool:
    return refusal(CALLER, Grants(({"Statement": list(statements)},)), need, context or {}) is None


def allow(**elements: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*", **elements}


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("*", "", True),
        ("s3:Get*", "s3:GetObject", True),
        ("s3:Get?bject", "s3:GetObject", True),
        ("s3:Get", "s3:GetObject", False),
        ("arn:aws:s3:::b.c/*", "arn:aws:s3:::bxc/k", False),  # a dot is literal
        ("arn:aws:s3:::b/[a]", "arn:aws:s3:::b/a", False),  # brackets are literal
        ("*a*b*", "xxaxxbxx", True),
        ("a\nb*", "a\nbc", True),
    ],
)
def test_a_pattern_has_only_two_wildcards(pattern: str, value: str, fits: bool) -> None:
    assert matches(pattern, value) is fits


@settings(max_examples=200)
@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_patterns_match_like_those_of_fnmatch(pattern: str, value: str) -> None:
    assert matches(pattern, value) == fnmatch.fnmatchcase(value, pattern)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (allow(), True),
        (allow(Action="S3:getobject"), True),  # actions ignore case
        (allow(Resource="arn:aws:s3:::B/k"), False),  # resources do not
        (allow(Action=["s3:PutObject", "s3:Get*"]), True),
        ({"Effect": "Allow", "NotAction": "s3:Put*", "Resource": "*"}, True),
        ({"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}, False),
        ({"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::b/*"}, False),
        ({"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::c/*"}, True),
        ({"Effect": "Allow", "Action": "*"}, False),  # an identity policy without a resource grants nothing
        (allow(Resource="arn:aws:s3:::b/${aws:username}"), False),  # a variable without a value matches nothing
    ],
)
def test_a_statement_covers_only_its_actions_and_resources(statement: dict[str, Any], expected: bool) -> None:
    assert allowed(statement) is expected


CONTEXT = {
    "s3:prefix": ("a/b",),
    "aws:tagkeys": ("x", "y"),
    "n": ("5",),
    "when": ("2026-06-01T00:00:00Z",),
    "ip": ("10.1.2.3",),
    "arn": ("arn:aws:iam::1:role/deploy",),
    "flag": ("true",),
    "who": ("me",),
}


@pytest.mark.parametrize(
    ("operator", "key", "values", "expected"),
    [
        ("StringEquals", "s3:prefix", "a/b", True),
        ("StringEquals", "S3:Prefix", ["c", "a/b"], True),
        ("StringEquals", "absent", "a", False),
        ("StringEqualsIfExists", "absent", "a", True),
        ("StringEqualsIgnoreCase", "s3:prefix", "A/B", True),
        ("StringNotEquals", "s3:prefix", "a/b", False),
        ("StringNotEquals", "s3:prefix", ["a/b", "c"], False),
        ("StringNotEquals", "absent", "a", True),
        ("StringLike", "s3:prefix", "a/*", True),
        ("StringLike", "s3:prefix", "${who}/*", False),
        ("StringNotLike", "s3:prefix", "c/*", True),
        ("ForAllValues:StringEquals", "aws:tagkeys", ["x", "y", "z"], True),
        ("ForAllValues:StringEquals", "aws:tagkeys", ["x"], False),
        ("ForAllValues:StringEquals", "absent", ["x"], True),
        ("ForAnyValue:StringEquals", "aws:tagkeys", ["y"], True),
        ("ForAnyValue:StringEquals", "absent", ["y"], False),
        ("ForAnyValue:StringEqualsIfExists", "absent", ["y"], True),
        ("ForAnyValue:StringEqualsIfExists", "aws:tagkeys", ["z"], False),
        ("ForAllValues:StringEqualsIfExists", "absent", ["y"], True),
        ("ForAnyValue:StringNotEquals", "aws:tagkeys", ["x"], True),
        ("StringNotEquals", "aws:tagkeys", ["x"], False),
        ("Bool", "flag", True, True),
        ("Bool", "flag", "false", False),
        ("Null", "absent", "true", True),
        ("Null", "flag", "true", False),
        ("Null", "flag", "false", True),
        ("NumericLessThan", "n", "6", True),
        ("NumericGreaterThanEquals", "n", 5, True),
        ("NumericEquals", "who", "5", False),  # not a number: no match
        ("NumericNotEquals", "n", "6", True),
        ("DateLessThan", "when", "2026-07-01T00:00:00Z", True),
        ("DateGreaterThan", "when", "1700000000", True),
        ("IpAddress", "ip", "10.0.0.0/8", True),
        ("NotIpAddress", "ip", ["192.168.0.0/16", "10.0.0.0/8"], False),
        ("ArnLike", "arn", "arn:aws:iam::*:role/dep*", True),
        ("ArnLike", "arn", "arn:aws:*", False),
        ("ArnNotEquals", "arn", "arn:aws:iam::1:role/other", True),
    ],
)
def test_each_condition_operator_follows_iam(operator: str, key: str, values: Any, expected: bool) -> None:
    listed = values if isinstance(values, list) else [values]
    assert holds(operator, key, listed, CONTEXT) is expected


VARIABLES = {"who": ("me",), "wild": ("*",), "one": ("?",), "name": ("a*b",), "many": ("x", "y")}


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("${who}/*", "me/x", True),
        ("${who}/*", "you/x", False),
        ("${WHO}", "me", True),
        ("${wild}", "*", True),
        ("${wild}", "anything", False),  # the value of a variable has no wildcards
        ("${one}", "x", False),
        ("${name}/*", "a*b/c", True),
        ("${name}/*", "axb/c", False),
        ("${*}", "*", True),  # stands for the character
        ("${*}", "x", False),
        ("a${?}", "a?", True),
        ("a${?}", "ab", False),
        ("${$}x", "$x", True),
        ("${many}", "x", False),
        ("${none}", "${none}", False),
        ("${none, 'team'}", "team", True),
    ],
)
def test_a_variable_is_replaced_by_its_value_only(pattern: str, value: str, fits: bool) -> None:
    arn = f"arn:aws:s3:::b/{value}"
    need = Need("s3:GetObject", arn)
    resource = {"Version": "2012-10-17", "Statement": [allow(Resource=f"arn:aws:s3:::b/{pattern}")]}
    assert (refusal(CALLER, Grants((resource,)), need, VARIABLES) is None) is fits
    context = {**VARIABLES, "key": (value,), "arn": (arn,)}
    assert holds("StringLike", "key", [pattern], context) is fits
    assert holds("ArnLike", "arn", [f"arn:aws:s3:::b/{pattern}"], context) is fits
    if "/" not in pattern:
        assert holds("StringEquals", "key", [pattern], context) is fits


@pytest.mark.parametrize("version", [{}, {"Version": "2008-10-17"}])
def test_a_policy_of_another_version_has_no_variables(version: dict[str, str]) -> None:
    def reads(key: str, **statement: Any) -> bool:
        document = {**version, "Statement": [allow(**statement)]}
        need = Need("s3:GetObject", f"arn:aws:s3:::b/{key}")
        return refusal(CALLER, Grants((document,)), need, {**VARIABLES, "key": (key,)}) is None

    mine = {"Resource": "arn:aws:s3:::b/${who}"}
    assert not reads("me", **mine)
    assert reads("${who}", **mine)
    for operator in ("StringEquals", "StringLike"):
        condition = {"Condition": {operator: {"key": "${who}"}}}
        assert not reads("me", **condition)
        assert reads("${who}", **condition)


def test_only_strings_and_arns_have_variables() -> None:
    context = {"n": ("5",), "five": ("5",)}
    assert not holds("NumericEquals", "n", ["${five}"], context)
    assert holds("StringEquals", "n", ["${five}"], context)


def test_a_variable_in_an_arn_may_have_colons_in_its_name() -> None:
    context = {"arn": ("arn:aws:iam::1:role/x",), "aws:principaltag/role": ("x",)}
    assert holds("ArnLike", "arn", ["arn:aws:iam::1:role/${aws:PrincipalTag/role}"], context)
    assert not holds("ArnLike", "arn", ["arn:aws:iam::1:role/${aws:PrincipalTag/other}"], context)


def test_all_conditions_of_a_statement_must_hold() -> None:
    both = {"StringLike": {"s3:prefix": "a/*"}, "Bool": {"flag": "false"}}
    assert not allowed(allow(Condition=both), context=CONTEXT)
    assert allowed(allow(Condition={**both, "Bool": {"flag": "true"}}), context=CONTEXT)


_statements = st.lists(
    st.fixed_dictionaries(
        {
            "Effect": st.sampled_from(["Allow", "Deny"]),
            "Action": st.sampled_from(["*", "s3:*", "s3:GetObject", "s3:PutObject"]),
            "Resource": st.sampled_from(["*", "arn:aws:s3:::b/*", "arn:aws:s3:::c/*"]),
        },
        optional={"Condition": st.sampled_from([{"Bool": {"flag": "true"}}, {"Bool": {"flag": "false"}}])},
    ),
    max_size=5,
)


@settings(max_examples=150)
@given(_statements, st.randoms())
def test_the_order_of_statements_does_not_matter(statements: list[dict[str, Any]], random: Any) -> None:
    shuffled = random.sample(statements, len(statements))
    assert allowed(*statements, context=CONTEXT) == allowed(*shuffled, context=CONTEXT)


@settings(max_examples=150)
@given(_statements)
def test_one_deny_overrides_every_allow(statements: list[dict[str, Any]]) -> None:
    deny = {"Effect": "Deny", "Action": "s3:Get*", "Resource": "arn:aws:s3:::b/*"}
    assert not allowed(*statements, deny, allow(), context=CONTEXT)


@settings(max_examples=150)
@given(_statements)
def test_a_request_needs_an_allow(statements: list[dict[str, Any]]) -> None:
    denies = [{**statement, "Effect": "Deny"} for statement in statements]
    assert not allowed(*denies, context=CONTEXT)


class TestResourcePolicies:
    def refused(self, principal: Any, *, rules: bool, identity: bool, **elements: Any) -> bool:
        statement = {"Effect": "Allow", "Principal": principal, "Action": "*", "Resource": "*", **elements}
        need = Need("kms:Sign", "arn:key", policy={"Statement": [statement]}, policy_rules=rules)
        grants = Grants(({"Statement": [allow(Action="*")]},) if identity else ())
        return refusal(CALLER, grants, need, {}) is not None

    def test_a_key_policy_that_names_the_account_delegates_to_identity_policies(self) -> None:
        for account in ("1", "arn:aws:iam::1:root"):
            assert not self.refused({"AWS": account}, rules=True, identity=True)
            assert self.refused({"AWS": account}, rules=True, identity=False)

    def test_a_key_policy_that_names_the_role_is_enough(self) -> None:
        assert not self.refused({"AWS": [ROLE]}, rules=True, identity=False)

    def test_a_key_policy_that_names_another_role_refuses(self) -> None:
        for other in ({"AWS": "arn:aws:iam::2:root"}, {"AWS": ROLE + "x"}, {"Service": "s3.amazonaws.com"}, {}):
            assert self.refused(other, rules=True, identity=True)

    def test_without_a_bucket_policy_identity_policies_decide(self) -> None:
        assert not self.refused({"AWS": "arn:aws:iam::2:root"}, rules=False, identity=True)

    def test_not_principal_applies_to_every_other_caller(self) -> None:
        assert self.refused(
            None, rules=False, identity=True, Effect="Deny", NotPrincipal={"AWS": "arn:aws:iam::1:role/other"}
        )
        assert not self.refused(None, rules=False, identity=True, Effect="Deny", NotPrincipal={"AWS": ROLE})
