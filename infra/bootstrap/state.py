"""Storage for the state of all Pulumi stacks, and the key that encrypts their secrets."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from infra.bootstrap.configuration import AccountConfig
from infra.bootstrap.layout import STATE_ALIAS
from infra.components.bucket import Bucket, BucketArgs, access_log_bucket
from infra.components.key import Key, KeyArgs
from infra.scopes import Scope


@dataclass(frozen=True, kw_only=True)
class StateStorageArgs:
    """Arguments of `StateStorage`.

    Attributes:
        scope: the account's scope.
        config: the account's configuration.
    """

    scope: Scope
    config: AccountConfig


class StateStorage(pulumi.ComponentResource):
    """The state bucket and its key.

    Attributes:
        bucket: holds the state.
        key: encrypts the bucket, and the secrets of stacks whose `secretsprovider` names it.
    """

    def __init__(self, name: str, args: StateStorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:bootstrap:StateStorage", name, None, opts)
        scope, child = args.scope, pulumi.ResourceOptions(parent=self)
        self.key = Key(
            name,
            KeyArgs(
                scope=scope,
                description="Encrypts the state of Pulumi stacks, and the secrets in it",
                alias=STATE_ALIAS,
            ),
            child,
        )
        logs = Bucket("state-logs", access_log_bucket(scope, "state-logs", args.config.log_days), child)
        self.bucket = Bucket(name, BucketArgs(scope=scope, key_arn=self.key.arn, access_logs=logs), child)
        self.register_outputs({"bucket": self.bucket.name, "key": self.key.arn})
