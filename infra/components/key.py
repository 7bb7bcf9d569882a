"""KMS keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pulumi
import pulumi_aws as aws

from infra.scopes import Scope

_DELETION_WINDOW_DAYS = 30
"""The longest deletion window that KMS offers. Data encrypted with a deleted key is lost."""


@dataclass(frozen=True, kw_only=True)
class KeyArgs:
    """Arguments of `Key`.

    Attributes:
        scope: the scope that the key belongs to.
        description: what the key is for.
        alias: the key's alias (`alias/mlops-dev-data`).
        use: `encrypt` for a symmetric key that is rotated, `sign` for an ECC_NIST_P256 key.
    """

    scope: Scope
    description: str
    alias: str
    use: Literal["encrypt", "sign"] = "encrypt"


class Key(pulumi.ComponentResource):
    """A KMS key with an alias. IAM policies of the account decide who may use it.

    Attributes:
        key_id: the key's id.
        arn: the key's ARN.
    """

    def __init__(self, name: str, args: KeyArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:storage:Key", name, None, opts)
        scope = args.scope
        child = pulumi.ResourceOptions(parent=self)
        kind: dict[str, Any] = {"enable_key_rotation": True}
        if args.use == "sign":
            kind = {"customer_master_key_spec": "ECC_NIST_P256", "key_usage": "SIGN_VERIFY"}
        key = aws.kms.Key(
            name,
            description=args.description,
            deletion_window_in_days=_DELETION_WINDOW_DAYS,
            policy=pulumi.Output.json_dumps(_account_policy(scope)),
            tags=scope.tags(),
            **kind,
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(protect=scope.protected)),
        )
        aws.kms.Alias(name, name=args.alias, target_key_id=key.id, opts=child)
        self.key_id: pulumi.Output[str] = key.id
        self.arn: pulumi.Output[str] = key.arn
        self.register_outputs({"key_id": self.key_id, "arn": self.arn})


def _account_policy(scope: Scope) -> dict[str, Any]:
    """Delegate access control to the account's IAM policies. No other account can use the key."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "AccountDecides",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:{scope.partition}:iam::{scope.account}:root"},
                "Action": "kms:*",
                "Resource": "*",
            }
        ],
    }
