"""Policy documents of a wrong form are refused when they are read, not when they are evaluated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from laptop.aws.access.policy import parse
from pipelines.declarations.errors import MlopsError

STATEMENT = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}


@pytest.mark.parametrize(
    ("element", "value"),
    [
        ("Action", 7),
        ("Action", ["s3:*", {"a": 1}]),
        ("NotAction", True),
        ("Resource", {"arn": "*"}),
        ("NotResource", [["*"]]),
        ("Condition", 3),
        ("Condition", ["StringEquals"]),
        ("Condition", {"StringEquals": "a"}),
        ("Condition", {"StringEquals": {"a": {"b": "c"}}}),
        ("Principal", 12),
        ("Principal", {"AWS": [{"a": 1}]}),
        ("NotPrincipal", {"AWS": 123456789012}),
    ],
)
def test_an_element_of_a_wrong_type_is_named(element: str, value: Any) -> None:
    document = {"Statement": [{**STATEMENT, element: value}]}
    with pytest.raises(MlopsError, match=f"`{element}` in the policy of r: expected .*, found "):
        parse(json.dumps(document), "r")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"Statement":' * 100_000, "{", ""])
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(MlopsError, match="is not JSON"):
        parse(text, "r")


def test_every_form_that_iam_takes_is_accepted() -> None:
    condition = {
        "StringEquals": {"a": ["b", "c"]},
        "Bool": {"d": True},
        "NumericLessThan": {"e": 1},
        "Null": {"f": "true"},
    }
    principals = ["*", {"AWS": "*"}, {"Service": ["pods.eks.amazonaws.com"], "AWS": ["123456789012"]}]
    for principal in principals:
        statement = {**STATEMENT, "Condition": condition, "Principal": principal, "Action": ["s3:*", "kms:Sign"]}
        assert parse(json.dumps({"Statement": statement}), "r")
