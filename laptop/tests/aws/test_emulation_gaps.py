"""Tests that prove each emulation gap, so the list shrinks as moto improves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from laptop.aws import image_content
from laptop.aws.account import Account
from laptop.aws.aws_provider import AwsProvider
from laptop.aws.emulation_gaps import GAPS
from laptop.aws.table import TABLE
from laptop.tests.aws.resource_lifecycles import LIFECYCLES

Proof = Callable[["Facts"], None]
PROOFS: dict[tuple[str, str], Proof] = {}


class Facts:
    """Fixtures of a proof."""

    def __init__(self, account: Account, provider: AwsProvider, make: Any, name: str, folder: Path) -> None:
        self.account, self.provider, self.make, self.name, self.folder = account, provider, make, name, folder

    def __getitem__(self, service: str) -> Any:
        return self.provider.cloud.client(service)


def proves(type_: str, property_: str) -> Callable[[Proof], Proof]:
    def keep(proof: Proof) -> Proof:
        PROOFS[type_, property_] = proof
        return proof

    return keep


@proves("aws:eks/podIdentityAssociation:PodIdentityAssociation", "")
def _pod_identity(facts: Facts) -> None:
    with pytest.raises(ClientError, match=r"404|Not Found|NotFound|not found"):
        facts["eks"].create_pod_identity_association(
            clusterName="c", namespace="n", serviceAccount="s", roleArn="arn:aws:iam::123456789012:role/r"
        )


@proves("aws:s3/bucketPolicy:BucketPolicy", "policy")
def _secure_transport(facts: Facts) -> None:
    bucket = facts.make("aws:s3/bucket:Bucket", facts.name).id
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    document = {"Version": "2012-10-17", "Statement": [statement]}
    facts["s3"].put_bucket_policy(Bucket=bucket, Policy=json.dumps(document))
    assert facts.account.endpoint.startswith("http://")
    facts["s3"].put_object(Bucket=bucket, Key="a", Body=b"1")


@proves("aws:s3/bucketNotification:BucketNotification", "eventbridge")
def _eventbridge(facts: Facts) -> None:
    bucket = facts.make("aws:s3/bucket:Bucket", facts.name).id
    facts["s3"].put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    answer = facts["s3"].get_bucket_notification_configuration(Bucket=bucket)
    assert "EventBridgeConfiguration" not in answer


@proves("aws:kms/key:Key", "rotationPeriodInDays")
def _rotation_period(facts: Facts) -> None:
    key = facts.make("aws:kms/key:Key", facts.name).id
    facts["kms"].enable_key_rotation(KeyId=key, RotationPeriodInDays=180)
    assert facts["kms"].get_key_rotation_status(KeyId=key).get("RotationPeriodInDays") != 180


@proves("aws:kms/key:Key", "bypassPolicyLockoutSafetyCheck")
def _lockout(facts: Facts) -> None:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::123456789012:user/operator"},
        "Action": "kms:DescribeKey",
        "Resource": "*",
    }
    # On AWS: MalformedPolicyDocumentException, because no principal could change this policy again.
    facts["kms"].create_key(Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


@proves("aws:ecr/repository:Repository", "imageScanningConfiguration")
def _scanning(facts: Facts) -> None:
    repository = facts.make(
        "aws:ecr/repository:Repository", facts.name, imageScanningConfiguration={"scanOnPush": True}
    ).outputs["name"]
    (facts.folder / "Dockerfile").write_text("FROM scratch\n")
    context = image_content.ImageContext.of("a", [], facts.folder, dockerfile=facts.folder / "Dockerfile")
    digest = image_content.publish(facts.provider.cloud, repository, context)
    answer = facts["ecr"].describe_image_scan_findings(repositoryName=repository, imageId={"imageDigest": digest})
    assert (answer["imageScanStatus"]["status"], answer["imageScanFindings"]["findings"]) == ("COMPLETE", [])


@proves("aws:cloudwatch/metricAlarm:MetricAlarm", "threshold")
def _alarm(facts: Facts) -> None:
    inputs = LIFECYCLES["aws:cloudwatch/metricAlarm:MetricAlarm"].inputs(facts.name, facts.make)
    alarm = facts.make("aws:cloudwatch/metricAlarm:MetricAlarm", facts.name, **inputs)
    facts["cloudwatch"].put_metric_data(
        Namespace="n",
        MetricData=[
            {
                "MetricName": "m",
                "Dimensions": [{"Name": "model", "Value": "diabetes"}],
                "Timestamp": time.time() - age,
                "Value": 100.0,
            }
            for age in (30, 90, 150)
        ],
    )
    found = facts["cloudwatch"].describe_alarms(AlarmNames=[alarm.id])["MetricAlarms"][0]
    assert found["StateValue"] != "ALARM"


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: f"{gap.type.rpartition(':')[2]}.{gap.property}")
def test_the_gap_still_exists(
    gap: Any, account: Account, provider: AwsProvider, make: Any, name: str, tmp_path: Path
) -> None:
    PROOFS[gap.type, gap.property](Facts(account, provider, make, name, tmp_path))


def test_a_row_and_the_list_have_the_same_reason() -> None:
    rows = {row.token: row.recorded for row in TABLE.values() if row.recorded}
    assert rows == {gap.type: gap.reason for gap in GAPS if not gap.property}


def test_every_gap_names_a_property_of_its_type() -> None:
    for gap in GAPS:
        row = TABLE[gap.type]
        assert gap.property in ("", *row.required, *row.optional)


def test_only_the_gaps_that_a_resource_uses_are_reported(provider: AwsProvider) -> None:
    plain = provider.check("aws:kms/key:Key", "k", {}, None)
    assert provider.recorded("aws:kms/key:Key", plain) == {}
    period = provider.check("aws:kms/key:Key", "k", {"rotationPeriodInDays": 90}, None)
    assert list(provider.recorded("aws:kms/key:Key", period)) == ["rotationPeriodInDays"]
    policy = {"bucket": "b", "policy": json.dumps({"Statement": []})}
    assert provider.recorded("aws:s3/bucketPolicy:BucketPolicy", policy) == {}
