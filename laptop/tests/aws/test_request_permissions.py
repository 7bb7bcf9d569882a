"""A request needs permission on every resource that it names, because moto chooses one of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from laptop.aws.access.request import Request, RequestRefusedError
from laptop.aws.access.request_permissions import needs

GLUE = "arn:aws:glue:eu-west-1:123456789012:"
ECR = "arn:aws:ecr:eu-west-1:123456789012:repository/"
ALARM = "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:"


def resources(service: str, operation: str, **parameters: Any) -> list[str]:
    headers = {"x-amz-target": f"Service.{operation}", "content-type": "application/x-amz-json-1.1"}
    body = json.dumps(parameters).encode()
    return [need.resource for need in needs(Request(service, "eu-west-1", "POST", "/", headers, body))]


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        ("GetDatabase", {"Name": "a"}, ["catalog", "database/a"]),
        ("UpdateDatabase", {"Name": "a", "DatabaseInput": {"Name": "b"}}, ["catalog", "database/b", "database/a"]),
        ("DeleteDatabase", {"Name": "a", "DatabaseName": "b"}, ["catalog", "database/b", "database/a"]),
        ("GetTable", {"DatabaseName": "a", "Name": "t"}, ["catalog", "database/a", "table/a/t"]),
        ("GetTables", {"DatabaseName": "a"}, ["catalog", "database/a", "table/a/*"]),
        ("CreateTable", {"DatabaseName": "a", "TableInput": {"Name": "t"}}, ["catalog", "database/a", "table/a/t"]),
        (
            "DeleteTable",
            {"DatabaseName": "a", "Name": "t", "TableName": "u"},
            ["catalog", "database/a", "table/a/u", "table/a/t"],
        ),
        (
            "BatchDeleteTable",
            {"DatabaseName": "a", "TablesToDelete": ["t", "u"]},
            ["catalog", "database/a", "table/a/t", "table/a/u"],
        ),
        ("GetPartitions", {"DatabaseName": "a", "TableName": "t"}, ["catalog", "database/a", "table/a/t"]),
        # The ARN of another resource counts for tags only.
        (
            "DeleteTable",
            {"DatabaseName": "a", "Name": "t", "ResourceArn": f"{GLUE}database/b"},
            ["catalog", "database/a", "table/a/t"],
        ),
        ("TagResource", {"ResourceArn": f"{GLUE}database/a", "DatabaseName": "b"}, ["database/a"]),
    ],
)
def test_a_request_to_glue_needs_every_database_and_table(
    operation: str, parameters: dict[str, Any], expected: list[str]
) -> None:
    assert resources("glue", operation, **parameters) == [GLUE + name for name in expected]


@pytest.mark.parametrize(
    ("operation", "parameters", "names"),
    [
        ("PutDashboard", {"DashboardName": "a", "DashboardBody": "{}"}, ["a"]),
        ("GetDashboard", {"DashboardName": "a"}, ["a"]),
        ("DeleteDashboards", {"DashboardNames": ["a", "b"]}, ["a", "b"]),
    ],
)
def test_a_request_for_dashboards_needs_each_of_them_in_no_region(
    operation: str, parameters: dict[str, Any], names: list[str]
) -> None:
    expected = [f"arn:aws:cloudwatch::123456789012:dashboard/{name}" for name in names]
    assert resources("cloudwatch", operation, **parameters) == expected


@pytest.mark.parametrize("parameters", [{"DatabaseInput": "a"}, {"DatabaseInput": ["a"]}, {"DatabaseName": {}}])
def test_odd_parameters_raise_nothing(parameters: dict[str, Any]) -> None:
    assert resources("glue", "CreateDatabase", **parameters)[0] == f"{GLUE}catalog"


def test_a_request_to_ecr_needs_every_repository() -> None:
    named = {"repositoryName": "a", "repositoryNames": ["b", "c"], "resourceArn": f"{ECR}d"}
    assert resources("ecr", "DescribeRepositories", **named) == [ECR + name for name in "abcd"]
    assert resources("ecr", "DescribeRepositories") == ["*"]
    assert resources("ecr", "ListTagsForResource", resourceArn=f"{ECR}a") == [f"{ECR}a"]


def test_a_request_to_a_topic_or_a_queue_needs_every_one() -> None:
    assert resources("sns", "Publish", TopicArn="arn:a", TargetArn="arn:b") == ["arn:a", "arn:b"]
    queue = "arn:aws:sqs:eu-west-1:123456789012:"
    assert resources("sqs", "SendMessage", QueueUrl="http://x/1/q", QueueName="r") == [f"{queue}q", f"{queue}r"]


def test_a_request_that_names_no_operation_is_refused() -> None:
    with pytest.raises(RequestRefusedError, match="exactly one operation"):
        needs(Request("kms", "eu-west-1", "POST", "/", {}, b"{}"))
    with pytest.raises(RequestRefusedError, match="exactly one operation"):
        needs(Request("kms", "eu-west-1", "POST", "/?Action=Sign", {"x-amz-target": "TrentService.Sign"}, b"{}"))


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        ("TagResource", {"ResourceARN": "arn:prod", "AlarmName": "a"}, ["arn:prod"]),
        (
            "DeleteDashboards",
            {"DashboardNames": ["prod"], "AlarmName": "a"},
            ["arn:aws:cloudwatch::123456789012:dashboard/prod"],
        ),
        ("SetAlarmState", {"AlarmName": "a", "ResourceARN": "arn:prod"}, [f"{ALARM}a", "arn:prod"]),
        ("DeleteAlarms", {"AlarmName": "a", "AlarmNames": ["b"]}, [f"{ALARM}a", f"{ALARM}b"]),
    ],
)
def test_a_parameter_that_an_operation_does_not_have_does_not_stand_for_its_resource(
    operation: str, parameters: dict[str, Any], expected: list[str]
) -> None:
    assert resources("monitoring", operation, **parameters) == expected
