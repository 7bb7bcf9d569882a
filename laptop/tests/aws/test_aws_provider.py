"""Tests of the AWS provider against a running account: the lifecycle of every type, resuming and drift."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.policies.resource_graph import UNKNOWN
from laptop.aws.aws_provider import AwsProvider
from laptop.aws.pod_identity import role_of
from laptop.aws.resources import s3_rows
from laptop.aws.resources.row import Row
from laptop.aws.table import TABLE, row_of
from laptop.engine.provider import Diff, Provider, ResourceCall
from laptop.tests.aws.resource_lifecycles import (
    BUCKET_LIFECYCLE,
    LIFECYCLES,
    LOCK,
    OTHER_TRUST,
    POLICY,
    SSE,
    TRUST,
    bucket_policy,
)
from pipelines.declarations.errors import MlopsError

pytestmark = pytest.mark.slow

UNREADABLE = {
    "aws:s3/bucketNotification:BucketNotification": ("eventbridge",),  # moto does not return it
    "aws:cloudwatch/eventConnection:EventConnection": ("authParameters.apiKey.value",),  # never shown
    "aws:kms/key:Key": ("deletionWindowInDays",),  # matters to a delete only
    "aws:iam/role:Role": ("inlinePolicies",),  # other resources may own inline policies
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider": ("thumbprintLists",),  # AWS computes them if not given
}
"""Type -> inputs that an import does not read."""


def test_every_type_of_the_table_has_a_lifecycle_test() -> None:
    assert set(LIFECYCLES) == {row.token for row in TABLE.values()}


def test_the_provider_implements_the_protocol(provider: AwsProvider) -> None:
    assert isinstance(provider, Provider)


@pytest.mark.parametrize("type_", LIFECYCLES)
def test_a_resource_is_created_read_changed_and_deleted(
    provider: AwsProvider, make: Callable[..., Any], name: str, type_: str
) -> None:
    lifecycle, urn = LIFECYCLES[type_], f"urn:pulumi:dev::mlops::{type_}::{name}"
    inputs = provider.check(type_, name, lifecycle.inputs(name, make), None)
    made = provider.create(ResourceCall(type_, inputs, urn))
    assert made.id
    for key in lifecycle.computed:
        assert made.outputs[key], f"{key} is not computed"
    for key, value in inputs.items():
        assert made.outputs[key] == value, f"{key} differs from the input"
    assert provider.read(ResourceCall(type_, inputs, id=made.id, outputs=made.outputs)) == made.outputs
    assert provider.diff(ResourceCall(type_, inputs, old_inputs=inputs, outputs=made.outputs)) == Diff(())

    computed = made.outputs.keys() - inputs.keys()
    assert computed <= {"id", *row_of(type_).computed}
    assert set(row_of(type_).computed) <= computed | inputs.keys()

    found = provider.read(ResourceCall(type_, {}, id=made.id))
    assert found is not None, "not found by its id only"
    imported = provider.imported_inputs(type_, found)
    difference = provider.diff(ResourceCall(type_, inputs, old_inputs=imported, outputs=found))
    assert difference == Diff(UNREADABLE.get(type_, ())), "an import differs from the program"

    again = provider.create(ResourceCall(type_, inputs, urn, resuming=True))
    assert again.id == made.id, "a resumed create created a second resource"

    held = inputs
    changes = lifecycle.change(inputs)
    if changes:
        held = provider.check(type_, name, {**inputs, **changes}, inputs)
        diff = provider.diff(ResourceCall(type_, held, old_inputs=inputs, outputs=made.outputs))
        assert {path.split(".")[0].split("[")[0] for path in diff.changed} == set(changes)
        assert diff.replace == ()
        changed = provider.update(ResourceCall(type_, held, urn, made.id, inputs, made.outputs))
        assert changed.id == made.id
        live = provider.read(ResourceCall(type_, held, id=made.id))
        assert live is not None
        for key, value in changes.items():
            assert live[key] == value, f"{key} did not change at AWS"
    if lifecycle.replace:
        other = {**held, **lifecycle.replace}
        assert set(provider.diff(ResourceCall(type_, other, old_inputs=held, outputs=made.outputs)).replace) == set(
            lifecycle.replace
        )

    provider.delete(ResourceCall(type_, held, urn, made.id, outputs=made.outputs))
    after = provider.read(ResourceCall(type_, held, id=made.id))
    if type_ in ("aws:s3/bucketNotification:BucketNotification", LOCK):
        # Every bucket has a notification configuration. Object lock cannot be turned off, but has no rule.
        assert after is not None
        assert not after.get("queues")
        assert not after.get("rule")
    elif type_ == "aws:s3/bucketVersioning:BucketVersioning":
        assert after is not None
        assert after["versioningConfiguration"]["status"] == "Suspended"
    else:
        assert after is None
    provider.delete(ResourceCall(type_, held, urn, made.id, outputs=made.outputs))


class TestNames:
    def test_a_resource_without_a_name_gets_one_and_keeps_it(self, provider: AwsProvider) -> None:
        type_ = "aws:s3/bucket:Bucket"
        first = provider.check(type_, "Landing", {}, None)
        assert first["bucket"].startswith("landing-")
        assert len(first["bucket"]) == len("landing-") + 7
        assert provider.check(type_, "Landing", {}, first) == first
        assert provider.check(type_, "Landing", {}, None) != first

    def test_a_name_too_long_for_aws_is_refused_with_its_length(self, provider: AwsProvider) -> None:
        with pytest.raises(MlopsError, match="at most 64 characters, found 68"):
            provider.check("aws:iam/role:Role", "r" * 60, {"assumeRolePolicy": json.dumps(TRUST)}, None)

    def test_a_resource_that_keeps_its_name_is_deleted_before_it_is_replaced(self, provider: AwsProvider) -> None:
        type_ = "aws:s3/bucket:Bucket"
        old = provider.check(type_, "b", {}, None)
        new = provider.check(type_, "b", {"objectLockEnabled": True}, old)
        assert provider.diff(ResourceCall(type_, new, old_inputs=old)).delete_before_replace
        renamed = provider.check(type_, "b", {"bucket": "another"}, old)
        assert not provider.diff(ResourceCall(type_, renamed, old_inputs=old)).delete_before_replace

    def test_a_key_is_replaced_before_the_old_one_is_deleted(self, provider: AwsProvider) -> None:
        type_ = "aws:kms/key:Key"
        old = provider.check(type_, "k", {}, None)
        new = provider.check(type_, "k", {"customerMasterKeySpec": "ECC_NIST_P256", "keyUsage": "SIGN_VERIFY"}, old)
        assert provider.diff(ResourceCall(type_, new, old_inputs=old)) == Diff(
            ("customerMasterKeySpec", "keyUsage"), ("customerMasterKeySpec", "keyUsage"), False
        )


class TestRefusals:
    def test_an_unsupported_type_is_named_with_the_folder_to_extend(self, provider: AwsProvider) -> None:
        with pytest.raises(MlopsError, match=r"`aws:lambda/function:Function`[\s\S]*laptop/aws/resources/"):
            provider.check("aws:lambda/function:Function", "f", {}, None)

    def test_an_unsupported_property_is_refused(self, provider: AwsProvider) -> None:
        with pytest.raises(MlopsError, match="`websiteFoo`"):
            provider.check("aws:s3/bucket:Bucket", "b", {"websiteFoo": 1}, None)

    def test_a_misspelled_property_deep_inside_is_refused(
        self, provider: AwsProvider, make: Callable[..., Any], name: str
    ) -> None:
        bucket = make("aws:s3/bucket:Bucket", name).id
        with pytest.raises(MlopsError, match=r"rules?\[0\]\.statuss|Rules\[0\]\.statuss"):
            make(BUCKET_LIFECYCLE, name, bucket=bucket, rules=[{"id": "a", "statuss": "Enabled"}])

    def test_a_missing_property_is_named(self, provider: AwsProvider) -> None:
        with pytest.raises(MlopsError, match="lacks the property `role`"):
            provider.check("aws:iam/rolePolicy:RolePolicy", "p", {"policy": "{}"}, None)

    @pytest.mark.parametrize(
        ("policy", "complaint"),
        [
            ("not json", "not JSON"),
            ("{}", "no `Statement`"),
            ({"Statement": [{"Effect": "Perhaps", "Action": "*"}]}, "Effect"),
            ({"Statement": [{"Effect": "Allow", "Resource": "*"}]}, "no `Action`"),
            (
                {"Statement": [{"Effect": "Allow", "Action": "*", "Condition": {"StringIsh": {"a": "b"}}}]},
                "StringIsh",
            ),
        ],
    )
    def test_an_invalid_policy_is_refused_before_it_is_applied(
        self, provider: AwsProvider, policy: Any, complaint: str
    ) -> None:
        with pytest.raises(MlopsError, match=complaint):
            provider.check("aws:iam/policy:Policy", "p", {"policy": policy}, None)

    def test_a_refusal_of_aws_is_reported_with_its_code(self, make: Callable[..., Any], name: str) -> None:
        with pytest.raises(MlopsError, match=f"aws:s3/bucketPolicy:BucketPolicy[\\s\\S]*{name}[\\s\\S]*NoSuchBucket"):
            make(
                "aws:s3/bucketPolicy:BucketPolicy",
                name,
                bucket=f"no-{name}",
                policy=bucket_policy({"bucket": f"no-{name}"}, "s3:GetObject"),
            )

    @pytest.mark.parametrize(
        ("type_", "inputs"),
        [
            ("aws:s3/bucket:Bucket", {"bucket": "twice"}),
            ("aws:iam/role:Role", {"name": "twice", "assumeRolePolicy": json.dumps(TRUST)}),
            ("aws:glue/catalogDatabase:CatalogDatabase", {"name": "twice"}),
            ("aws:ecr/repository:Repository", {"name": "twice"}),
        ],
    )
    def test_an_existing_resource_is_not_adopted(
        self, make: Callable[..., Any], type_: str, inputs: dict[str, Any]
    ) -> None:
        make(type_, "first", **inputs)
        with pytest.raises(MlopsError, match=r"[Ee]xists"):
            make(type_, "second", **inputs)


def delete_bucket(provider: AwsProvider, made: Any) -> None:
    """Delete a bucket, and check that it is gone."""
    provider.delete(ResourceCall("aws:s3/bucket:Bucket", made.outputs, "urn", made.id, outputs=made.outputs))
    assert provider.read(ResourceCall("aws:s3/bucket:Bucket", {}, id=made.id)) is None


class TestBuckets:
    def test_a_bucket_with_objects_is_not_deleted_unless_it_is_disposable(
        self, provider: AwsProvider, make: Callable[..., Any], client: Callable[[str], Any], name: str
    ) -> None:
        type_ = "aws:s3/bucket:Bucket"
        made = make(type_, name)
        make(
            "aws:s3/bucketVersioning:BucketVersioning",
            name,
            bucket=made.id,
            versioningConfiguration={"status": "Enabled"},
        )
        s3 = client("s3")
        for body in (b"1", b"2"):
            s3.put_object(Bucket=made.id, Key="a", Body=body)
        s3.delete_object(Bucket=made.id, Key="a")  # leaves a delete marker and two versions
        with pytest.raises(MlopsError, match="BucketNotEmpty"):
            provider.delete(ResourceCall(type_, made.outputs, "urn", made.id, outputs=made.outputs))
        provider.delete(ResourceCall(type_, {"forceDestroy": True}, "urn", made.id))
        assert provider.read(ResourceCall(type_, {}, id=made.id)) is None

    def test_a_disposable_bucket_with_more_objects_than_a_page_is_deleted(
        self,
        provider: AwsProvider,
        make: Callable[..., Any],
        client: Callable[[str], Any],
        name: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(s3_rows, "_PAGE", 2)
        monkeypatch.setattr(s3_rows, "_DELETIONS", 1)
        made = make("aws:s3/bucket:Bucket", name, forceDestroy=True)
        for key in "abcde":
            client("s3").put_object(Bucket=made.id, Key=key, Body=b"")
        delete_bucket(provider, made)

    def test_a_disposable_bucket_that_receives_an_access_log_meanwhile_is_deleted(
        self,
        provider: AwsProvider,
        make: Callable[..., Any],
        client: Callable[[str], Any],
        name: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        made = make("aws:s3/bucket:Bucket", name, forceDestroy=True)
        empty, late = s3_rows._empty, ["log"]

        def then_receive(s3: Any, bucket: str, *, locked: bool) -> None:
            empty(s3, bucket, locked=locked)
            if late:
                client("s3").put_object(Bucket=bucket, Key=late.pop(), Body=b"")

        monkeypatch.setattr(s3_rows, "_empty", then_receive)
        delete_bucket(provider, made)

    def test_a_disposable_bucket_under_governance_is_emptied_too(
        self, provider: AwsProvider, make: Callable[..., Any], client: Callable[[str], Any], name: str
    ) -> None:
        made = make("aws:s3/bucket:Bucket", name, objectLockEnabled=True, forceDestroy=True)
        make(LOCK, name, bucket=made.id, rule={"defaultRetention": {"mode": "GOVERNANCE", "days": 9}})
        client("s3").put_object(Bucket=made.id, Key="a", Body=b"1")
        delete_bucket(provider, made)

    def test_objects_under_compliance_retention_are_kept(
        self, provider: AwsProvider, make: Callable[..., Any], client: Callable[[str], Any], name: str
    ) -> None:
        made = make("aws:s3/bucket:Bucket", name, objectLockEnabled=True, forceDestroy=True)
        make(LOCK, name, bucket=made.id, rule={"defaultRetention": {"mode": "COMPLIANCE", "days": 9}})
        client("s3").put_object(Bucket=made.id, Key="a", Body=b"1")
        with pytest.raises(MlopsError, match="cannot be emptied"):
            provider.delete(ResourceCall("aws:s3/bucket:Bucket", made.outputs, "urn", made.id, outputs=made.outputs))

    def test_settings_of_a_deleted_bucket_are_gone(self, provider: AwsProvider) -> None:
        for token, row in TABLE.items():
            if token.startswith("aws:s3/bucket") and token != "aws:s3/bucket:Bucket":
                assert provider.read(ResourceCall(row.token, {"bucket": "never-was"}, id="never-was")) is None
                provider.delete(ResourceCall(row.token, {"bucket": "never-was"}, "urn", "never-was"))


class TestSameness:
    def test_a_policy_in_another_order_is_the_same_policy(self, provider: AwsProvider) -> None:
        type_ = "aws:iam/policy:Policy"
        turned = {
            "Statement": {
                "Resource": ["arn:aws:s3:::b/*"],
                "Action": ["s3:PutObject", "s3:GetObject"],
                "Effect": "Allow",
            },
            "Version": "2012-10-17",
        }
        old = provider.check(type_, "p", {"name": "p", "policy": json.dumps(POLICY)}, None)
        new = provider.check(type_, "p", {"name": "p", "policy": json.dumps(turned, indent=4)}, old)
        assert provider.diff(ResourceCall(type_, new, old_inputs=old)) == Diff(())

    def test_an_added_action_changes_a_policy(self, provider: AwsProvider) -> None:
        wider = json.loads(json.dumps(POLICY))
        wider["Statement"][0]["Action"].append("s3:DeleteObject")
        old, new = {"policy": json.dumps(POLICY)}, {"policy": json.dumps(wider)}
        assert provider.diff(ResourceCall("aws:iam/policy:Policy", new, old_inputs=old)) == Diff(("policy",))

    def test_a_condition_is_compared_with_its_operator_and_values(self, provider: AwsProvider) -> None:
        def policy(operator: str, values: Any) -> dict[str, str]:
            statement = {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {operator: {"k": values}}}
            return {"policy": json.dumps({"Statement": statement})}

        def diff(new: dict[str, str]) -> tuple[str, ...]:
            return provider.diff(
                ResourceCall("aws:iam/policy:Policy", new, old_inputs=policy("StringLike", ["a", "b"]))
            ).changed

        assert diff(policy("StringLike", ["b", "a"])) == ()
        assert diff(policy("StringEquals", ["a", "b"])) == ("policy",)
        assert diff(policy("StringLike", "a")) == ("policy",)

    def test_a_changed_tag_is_named_by_its_path(self, provider: AwsProvider) -> None:
        old, new = {"tags": {"a": "1", "b": "2"}}, {"tags": {"b": "3", "a": "1"}}
        assert provider.diff(ResourceCall("aws:s3/bucket:Bucket", new, old_inputs=old)).changed == ("tags.b",)

    def test_an_unknown_value_is_a_change(self, provider: AwsProvider) -> None:
        type_ = "aws:s3/bucketPolicy:BucketPolicy"
        new = provider.check(type_, "p", {"bucket": UNKNOWN, "policy": UNKNOWN}, None)
        diff = provider.diff(ResourceCall(type_, new, old_inputs={"bucket": "a", "policy": "{}"}))
        assert diff.changed == ("bucket", "policy")
        assert diff.replace == ("bucket",)


class TestDrift:
    """Changes outside of the program are seen as drift."""

    @pytest.fixture
    def drift(self, provider: AwsProvider, make: Callable[..., Any]) -> Callable[..., dict[str, Any] | None]:
        def after(type_: str, resource: str, meddle: Callable[[str], Any], **inputs: Any) -> dict[str, Any] | None:
            made = make(type_, resource, **inputs)
            meddle(made.id)
            return provider.read(
                ResourceCall(
                    type_, provider.check(type_, resource, inputs, made.outputs), id=made.id, outputs=made.outputs
                )
            )

        return after

    def test_a_deleted_bucket(self, drift: Any, client: Any, name: str) -> None:
        assert drift("aws:s3/bucket:Bucket", name, lambda id_: client("s3").delete_bucket(Bucket=id_)) is None

    def test_disabled_versioning(self, drift: Any, client: Any, bucket: str, name: str) -> None:
        live = drift(
            "aws:s3/bucketVersioning:BucketVersioning",
            name,
            lambda id_: client("s3").put_bucket_versioning(Bucket=id_, VersioningConfiguration={"Status": "Suspended"}),
            bucket=bucket,
            versioningConfiguration={"status": "Enabled"},
        )
        assert live["versioningConfiguration"]["status"] == "Suspended"

    def test_weaker_encryption(self, drift: Any, client: Any, bucket: str, name: str) -> None:
        weaker = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
        live = drift(
            SSE,
            name,
            lambda id_: client("s3").put_bucket_encryption(Bucket=id_, ServerSideEncryptionConfiguration=weaker),
            bucket=bucket,
            rules=[{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": "k"}}],
        )
        assert live["rules"][0]["applyServerSideEncryptionByDefault"]["sseAlgorithm"] == "AES256"

    def test_a_deleted_bucket_policy(self, drift: Any, client: Any, bucket: str, name: str) -> None:
        assert (
            drift(
                "aws:s3/bucketPolicy:BucketPolicy",
                name,
                lambda id_: client("s3").delete_bucket_policy(Bucket=id_),
                bucket=bucket,
                policy=bucket_policy({"bucket": bucket}, "s3:DeleteObject"),
            )
            is None
        )

    def test_a_public_bucket(self, drift: Any, client: Any, bucket: str, name: str) -> None:
        live = drift(
            "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
            name,
            lambda id_: client("s3").put_public_access_block(
                Bucket=id_, PublicAccessBlockConfiguration={"BlockPublicAcls": False}
            ),
            bucket=bucket,
            blockPublicAcls=True,
        )
        assert live["blockPublicAcls"] is False

    def test_changed_tags(self, drift: Any, client: Any, name: str) -> None:
        live = drift(
            "aws:s3/bucket:Bucket",
            name,
            lambda id_: client("s3").put_bucket_tagging(
                Bucket=id_, Tagging={"TagSet": [{"Key": "owner", "Value": "nobody"}]}
            ),
            tags={"owner": "platform"},
        )
        assert live["tags"] == live["tagsAll"] == {"owner": "nobody"}

    def test_a_role_with_more_permissions(self, drift: Any, make: Any, client: Any, name: str) -> None:
        role = make("aws:iam/role:Role", name, assumeRolePolicy=json.dumps(TRUST)).outputs["name"]
        live = drift(
            "aws:iam/rolePolicy:RolePolicy",
            name,
            lambda id_: client("iam").put_role_policy(
                RoleName=role,
                PolicyName=id_.partition(":")[2],
                PolicyDocument=json.dumps(
                    {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}], "Version": "2012-10-17"}
                ),
            ),
            role=role,
            policy=json.dumps(POLICY),
        )
        assert json.loads(live["policy"])["Statement"][0]["Action"] == "*"

    def test_a_role_that_trusts_another_principal(self, drift: Any, client: Any, name: str) -> None:
        live = drift(
            "aws:iam/role:Role",
            name,
            lambda id_: client("iam").update_assume_role_policy(RoleName=id_, PolicyDocument=json.dumps(OTHER_TRUST)),
            assumeRolePolicy=json.dumps(TRUST),
        )
        assert "batch.amazonaws.com" in live["assumeRolePolicy"]

    def test_an_alias_of_another_key(self, drift: Any, make: Any, client: Any, name: str) -> None:
        old = make("aws:kms/key:Key", f"{name}-old").outputs["keyId"]
        new = make("aws:kms/key:Key", f"{name}-new").outputs["keyId"]
        live = drift(
            "aws:kms/alias:Alias",
            name,
            lambda id_: client("kms").update_alias(AliasName=id_, TargetKeyId=new),
            targetKeyId=old,
        )
        assert live["targetKeyId"] == new
        assert live["targetKeyArn"].endswith(new)

    def test_a_key_with_scheduled_deletion_is_gone(self, drift: Any, client: Any, name: str) -> None:
        assert (
            drift(
                "aws:kms/key:Key",
                name,
                lambda id_: client("kms").schedule_key_deletion(KeyId=id_, PendingWindowInDays=7),
            )
            is None
        )

    def test_a_database_with_another_description(self, drift: Any, client: Any, name: str) -> None:
        live = drift(
            "aws:glue/catalogDatabase:CatalogDatabase",
            name,
            lambda id_: client("glue").update_database(
                Name=id_.partition(":")[2],
                DatabaseInput={"Name": id_.partition(":")[2], "Description": "other"},
            ),
            description="ours",
        )
        assert live["description"] == "other"


class TestIceberg:
    def test_an_iceberg_table_is_ready_for_its_first_commit(
        self,
        provider: AwsProvider,
        make: Callable[..., Any],
        client: Callable[[str], Any],
        bucket: str,
        name: str,
        monkeypatch: pytest.MonkeyPatch,
        account: Any,
    ) -> None:
        import pyarrow as pa
        from pyiceberg.catalog.glue import GlueCatalog

        type_ = "aws:glue/catalogTable:CatalogTable"
        database = make("aws:glue/catalogDatabase:CatalogDatabase", name).outputs["name"]
        columns = [
            {"name": "id", "type": "bigint", "comment": "who"},
            {"name": "name", "type": "string"},
            {"name": "score", "type": "double"},
            {"name": "price", "type": "decimal(10,2)"},
            {"name": "at", "type": "timestamp"},
            {"name": "on", "type": "date"},
            {"name": "ok", "type": "boolean"},
        ]
        inputs = {
            "databaseName": database,
            "name": "events",
            "openTableFormatInput": {"icebergInput": {"metadataOperation": "CREATE", "version": "2"}},
            "storageDescriptor": {"location": f"s3://{bucket}/{database}/events", "columns": columns},
        }
        made = make(type_, name, **inputs)
        for key, value in account.environ().items():
            monkeypatch.setenv(key, value)
        catalog = GlueCatalog("glue", **{"s3.endpoint": account.endpoint, "s3.region": account.region})
        table = catalog.load_table((database, "events"))
        assert [field.name for field in table.schema().fields] == [column["name"] for column in columns]
        assert table.format_version == 2
        assert table.schema().find_field("id").doc == "who"
        table.append(pa.table({"id": pa.array([1, 2], pa.int64()), "name": ["a", "b"]}))
        assert catalog.load_table((database, "events")).scan().to_arrow().num_rows == 2

        # A commit is not drift, and a resumed create keeps it.
        assert provider.read(ResourceCall(type_, made.outputs, id=made.id, outputs=made.outputs)) == made.outputs
        provider.create(ResourceCall(type_, provider.check(type_, name, inputs, None), "urn", resuming=True))
        assert catalog.load_table((database, "events")).scan().to_arrow().num_rows == 2

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"storageDescriptor": {"location": "s3://b/t", "columns": [{"name": "a", "type": "uuidish"}]}}, "uuidish"),
            ({"storageDescriptor": {"columns": []}}, "no location"),
            ({"openTableFormatInput": {"icebergInput": {"metadataOperation": "REPLACE"}}}, "CREATE"),
            ({"partitionKeys": [{"name": "d", "type": "date"}]}, "partitionKeys"),
        ],
    )
    def test_an_invalid_iceberg_table_is_refused(
        self, make: Callable[..., Any], change: dict[str, Any], complaint: str
    ) -> None:
        inputs = {
            "databaseName": "d",
            "name": "t",
            "openTableFormatInput": {"icebergInput": {"metadataOperation": "CREATE", "version": "2"}},
            "storageDescriptor": {"location": "s3://b/t", "columns": []},
        }
        with pytest.raises(MlopsError, match=complaint):
            make("aws:glue/catalogTable:CatalogTable", "t", **{**inputs, **change})


class TestPodIdentity:
    TYPE = "aws:eks/podIdentityAssociation:PodIdentityAssociation"

    def inputs(self, **changes: Any) -> dict[str, Any]:
        return {
            "clusterName": "c",
            "namespace": "n",
            "serviceAccount": "s",
            "roleArn": "arn:aws:iam::123456789012:role/r",
            **changes,
        }

    @pytest.fixture
    def own(self, account: Any, home: Path) -> AwsProvider:
        return AwsProvider(account.environ(), home)

    def test_an_association_is_recorded_and_read_by_the_cluster(self, own: AwsProvider, home: Path) -> None:
        made = own.create(ResourceCall(self.TYPE, self.inputs(), "urn:a"))
        assert "no EKS Pod Identity" in made.recorded
        assert role_of(home, "c", "n", "s") == "arn:aws:iam::123456789012:role/r"
        assert role_of(home, "c", "n", "other") is None
        assert role_of(home, "another", "n", "s") is None
        held = json.loads((home / "pod-identity.json").read_text())
        assert held["c"][0].keys() == {"associationId", "namespace", "serviceAccount", "roleArn", "changedAt"}
        own.delete(ResourceCall(self.TYPE, self.inputs(), "urn:a", made.id, outputs=made.outputs))
        assert role_of(home, "c", "n", "s") is None

    def test_one_service_account_has_one_role(self, own: AwsProvider) -> None:
        own.create(ResourceCall(self.TYPE, self.inputs(), "urn:a"))
        with pytest.raises(MlopsError, match="n/s"):
            own.create(ResourceCall(self.TYPE, self.inputs(roleArn="arn:aws:iam::123456789012:role/other"), "urn:b"))

    def test_associations_created_in_parallel_are_all_kept(self, own: AwsProvider, home: Path) -> None:
        from concurrent.futures import ThreadPoolExecutor

        def create(number: int) -> None:
            own.create(ResourceCall(self.TYPE, self.inputs(serviceAccount=f"s{number}"), f"urn:{number}"))

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(create, range(12)))
        assert all(role_of(home, "c", "n", f"s{number}") for number in range(12))


class TestFunctions:
    def test_the_caller_and_the_region_are_those_of_the_account(self, provider: AwsProvider) -> None:
        caller = provider.invoke("aws:index/getCallerIdentity:getCallerIdentity", {})
        assert caller["accountId"] == "123456789012"
        assert caller["arn"].endswith(":user/operator")
        assert provider.invoke("aws:index/getRegion:getRegion", {})["region"] == provider.cloud.region

    def test_the_public_key_verifies_a_signature_of_the_key(
        self, provider: AwsProvider, make: Callable[..., Any], client: Callable[[str], Any], name: str
    ) -> None:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = make("aws:kms/key:Key", name, customerMasterKeySpec="ECC_NIST_P256", keyUsage="SIGN_VERIFY")
        found = provider.invoke("aws:kms/getPublicKey:getPublicKey", {"keyId": key.outputs["arn"]})
        signature = client("kms").sign(
            KeyId=key.id, Message=b"payload", MessageType="RAW", SigningAlgorithm="ECDSA_SHA_256"
        )["Signature"]
        public = serialization.load_pem_public_key(found["publicKeyPem"].encode())
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(signature, b"payload", ec.ECDSA(hashes.SHA256()))

    def test_an_unsupported_function_is_named_with_the_file_to_extend(self, provider: AwsProvider) -> None:
        with pytest.raises(MlopsError, match=r"getVpc[\s\S]*functions\.py"):
            provider.invoke("aws:ec2/getVpc:getVpc", {})


def test_the_properties_of_every_row_exist_in_pulumi() -> None:
    import importlib
    import inspect

    import pulumi

    def names(row: Row) -> set[str]:
        module, _, kind = row.token.split(":", 2)[1].partition("/")[0], None, row.token.rsplit(":", 1)[1]
        class_ = getattr(importlib.import_module(f"pulumi_aws.{module}"), kind)
        found = inspect.signature(class_._internal_init).parameters
        args = inspect.signature(
            getattr(importlib.import_module(f"pulumi_aws.{module}"), f"{kind}Args").__init__
        ).parameters
        assert issubclass(class_, pulumi.CustomResource)
        return {_camel(key) for key in (*found, *args)}

    for row in TABLE.values():
        assert set(row.required) | set(row.optional) <= names(row), row.token


def _camel(snake: str) -> str:
    first, *rest = snake.split("_")
    return first + "".join(word.capitalize() for word in rest)
