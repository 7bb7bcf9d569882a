"""IAM and KMS changes that take effect late, and ECR scans, on a clock that the test moves."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from moto import mock_aws

from laptop.aws.access.effective_values import EffectiveValues
from laptop.aws.access.principals import Principals
from laptop.tests.cluster.running_cluster import SetClock


def test_a_change_takes_effect_later_and_changes_in_order() -> None:
    clock = SetClock()
    values = EffectiveValues[str](10.0, clock=clock)
    assert values.observe("key", "a") == "a"
    clock.pass_time(100)
    assert values.observe("key", "b") == "a"
    clock.pass_time(5)
    assert values.observe("key", "c") == "a"
    clock.pass_time(5)
    assert values.observe("key", "c") == "b"
    clock.pass_time(5)
    assert values.observe("key", "c") == "c"


def test_a_value_that_changes_back_before_it_took_effect_takes_effect_again() -> None:
    clock = SetClock()
    values = EffectiveValues[str](10.0, clock=clock)
    values.observe("key", "a")
    values.observe("key", "b")
    clock.pass_time(5)
    assert values.observe("key", "a") == "a"
    clock.pass_time(5)
    assert values.observe("key", "a") == "b"
    clock.pass_time(5)
    assert values.observe("key", "a") == "a"


def test_a_new_object_is_unset_at_first_and_again_after_it_was_deleted() -> None:
    clock = SetClock()
    values = EffectiveValues[str](10.0, "nothing", clock)
    assert values.observe("key", "a") == "nothing"
    clock.pass_time(10)
    assert values.observe("key", "a") == "a"
    values.forget("key")
    assert values.observe("key", "a") == "nothing"


def test_without_a_delay_every_value_counts_at_once() -> None:
    values = EffectiveValues[str](0.0, "nothing", SetClock())
    assert [values.observe("key", value) for value in "abc"] == ["a", "b", "c"]


TRUST = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
)
POLICY = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}
)


@pytest.fixture
def account() -> Iterator[None]:
    with mock_aws():
        yield


def assumed(arn: str) -> str:
    import boto3

    sts = boto3.client("sts", region_name="eu-west-1")
    return str(sts.assume_role(RoleArn=arn, RoleSessionName="me")["Credentials"]["AccessKeyId"])


@pytest.mark.usefixtures("account")
def test_a_role_and_its_policies_take_effect_later() -> None:
    import boto3

    clock, iam = SetClock(), boto3.client("iam", region_name="eu-west-1")
    principals = Principals(10.0, clock)
    arn = iam.create_role(RoleName="serve", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    principals.observe()
    key = assumed(arn)
    assert principals.trust_of(arn) is None
    clock.pass_time(10)
    assert principals.trust_of(arn) is not None

    iam.put_role_policy(RoleName="serve", PolicyName="read", PolicyDocument=POLICY)
    principals.observe()
    clock.pass_time(9)
    found = principals.find(key)
    assert found is not None and found.grants.identity == ()
    clock.pass_time(1)
    found = principals.find(key)
    assert found is not None and len(found.grants.identity) == 1

    iam.delete_role_policy(RoleName="serve", PolicyName="read")
    iam.delete_role(RoleName="serve")
    principals.observe()
    iam.create_role(RoleName="serve", AssumeRolePolicyDocument=TRUST)
    assert principals.trust_of(arn) is None
