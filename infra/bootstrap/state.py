"""Where Pulumi keeps the state of every stack, and the key that seals the secrets in it."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.bootstrap.configuration import AccountConfig
from infra.bootstrap.estate import STATE_ALIAS
from infra.components.bucket import Bucket, BucketArgs
from infra.components.storage import DELETION_WINDOW_DAYS, access_logs, account_decides
from infra.environment import Place

_LOGS = "state-logs"


class State(pulumi.ComponentResource):
    """The state bucket and its key.

    Attributes:
        bucket: holds the state.
        key: encrypts the bucket, and the secrets of stacks whose `secretsprovider` names it.
    """

    def __init__(self, name: str, place: Place, config: AccountConfig) -> None:
        super().__init__("mlops:bootstrap:State", name)
        self.key = aws.kms.Key(
            name,
            description="Encrypts the state of Pulumi's stacks, and the secrets in it",
            enable_key_rotation=True,
            deletion_window_in_days=DELETION_WINDOW_DAYS,
            policy=pulumi.Output.json_dumps(account_decides(place)),
            tags=place.tags(),
            opts=pulumi.ResourceOptions(parent=self, protect=place.protected),
        )
        aws.kms.Alias(name, name=STATE_ALIAS, target_key_id=self.key.key_id, opts=pulumi.ResourceOptions(parent=self))
        logs = Bucket(_LOGS, access_logs(place, _LOGS, config.log_days), parent=self)
        self.bucket = Bucket(name, BucketArgs(place, self.key.arn, logs), parent=self)
        self.register_outputs({"bucket": self.bucket.name, "key": self.key.arn})
