"""The provider against a real emulated account: every type lives its whole life, and resumes, and drifts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from laptop.aws.pod_identity import role_of
from laptop.aws.provider import AwsProvider
from laptop.aws.resources.row import Row
from laptop.aws.table import TABLE
from laptop.engine.provider import Diff, Provider
from laptop.engine.values import UNKNOWN
from pipelines.declarations.errors import MlopsError

from .lives import LIFECYCLE, LIVES, LOCK, OTHER_TRUST, POLICY, SSE, TRUST, bucket_policy


def test_every_type_of_the_table_has_a_life_below() -> None:
    assert set(LIVES) == {row.token for row in TABLE.values()}


def test_the_provider_is_what_the_engine_asks_for(provider: AwsProvider) -> None:
    assert isinstance(provider, Provider)


@pytest.mark.parametrize("type_", LIVES)
def test_a_resource_is_created_read_changed_and_deleted(
    provider: AwsProvider, make: Callable[..., Any], name: str, type_: str
) -> None:
    life, urn = LIVES[type_], f"urn:pulumi:dev::mlops::{type_}::{name}"
    inputs = provider.check(type_, name, life.inputs(name, make), None)
    made = provider.create(urn, type_, inputs)
    assert made.id
    for key in life.computed:
        assert made.outputs[key], f"{key} is not computed"
    for key, value in inputs.items():
        assert made.outputs[key] == value, f"{key} came back otherwise"
    assert provider.read(type_, made.id, inputs, made.outputs) == made.outputs
    assert provider.diff(type_, inputs, inputs, made.outputs) == Diff(())

    again = provider.create(urn, type_, inputs, resuming=True)
    assert again.id == made.id, "a resumed create made another one"

    held = inputs
    changes = life.change(inputs)
    if changes:
        held = provider.check(type_, name, {**inputs, **changes}, inputs)
        diff = provider.diff(type_, inputs, held, made.outputs)
        assert {path.split(".")[0].split("[")[0] for path in diff.changed} == set(changes)
        assert diff.replace == ()
        changed = provider.update(urn, type_, made.id, inputs, held, made.outputs)
        assert changed.id == made.id
        live = provider.read(type_, made.id, held, {})
        assert live is not None
        for key, value in changes.items():
            assert live[key] == value, f"{key} did not change at AWS"
    if life.replace:
        other = {**held, **life.replace}
        assert set(provider.diff(type_, held, other, made.outputs).replace) == set(life.replace)

    provider.delete(urn, type_, made.id, held, made.outputs)
    after = provider.read(type_, made.id, held, {})
    if type_ in ("aws:s3/bucketNotification:BucketNotification", LOCK):
        # Every bucket has notifications, be they none; object lock, once on, stays on without a rule.
        assert after is not None
        assert not after.get("queues")
        assert not after.get("rule")
    elif type_ == "aws:s3/bucketVersioning:BucketVersioning":
        assert after is not None
        assert after["versioningConfiguration"]["status"] == "Suspended"
    else:
        assert after is None
    provider.delete(urn, type_, made.id, held, made.outputs)


def test_two_types_that_differ_by_the_spelling_v2_are_one(provider: AwsProvider) -> None:
    assert TABLE["aws:s3/bucketVersioningV2:BucketVersioningV2"] is TABLE["aws:s3/bucketVersioning:BucketVersioning"]


class TestNames:
    def test_a_resource_without_a_name_gets_one_that_lasts(self, provider: AwsProvider) -> None:
        type_ = "aws:s3/bucket:Bucket"
        first = provider.check(type_, "Landing", {}, None)
        assert first["bucket"].startswith("landing-")
        assert len(first["bucket"]) == len("landing-") + 7
        assert provider.check(type_, "Landing", {}, first) == first
        assert provider.check(type_, "Landing", {}, None) != first

    def test_a_name_longer_than_aws_takes_is_refused_with_its_length(self, provider: AwsProvider) -> None:
        with pytest.raises(MlopsError, match="takes 64"):
            provider.check("aws:iam/role:Role", "r" * 60, {"assumeRolePolicy": json.dumps(TRUST)}, None)

    def test_what_keeps_its_name_is_deleted_before_it_is_replaced(self, provider: AwsProvider) -> None:
        type_ = "aws:s3/bucket:Bucket"
        old = provider.check(type_, "b", {}, None)
        new = provider.check(type_, "b", {"objectLockEnabled": True}, old)
        assert provider.diff(type_, old, new, {}).delete_before_replace
        renamed = provider.check(type_, "b", {"bucket": "another"}, old)
        assert not provider.diff(type_, old, renamed, {}).delete_before_replace

    def test_a_key_is_replaced_before_the_old_one_goes(self, provider: AwsProvider) -> None:
        type_ = "aws:kms/key:Key"
        old = provider.check(type_, "k", {}, None)
        new = provider.check(type_, "k", {"customerMasterKeySpec": "ECC_NIST_P256", "keyUsage": "SIGN_VERIFY"}, old)
        assert provider.diff(type_, old, new, {}) == Diff(
            ("customerMasterKeySpec", "keyUsage"), ("customerMasterKeySpec", "keyUsage"), False
        )


class TestRefusals:
    def test_a_type_that_is_not_in_the_table_is_named_with_the_file_to_extend(self, provider: AwsProvider) -> None:
        with pytest.raises(MlopsError, match=r"`aws:lambda/function:Function`[\s\S]*laptop/aws/resources/"):
            provider.check("aws:lambda/function:Function", "f", {}, None)

    def test_a_property_that_would_have_no_effect_is_refused(self, provider: AwsProvider) -> None:
        with pytest.raises(MlopsError, match="`websiteFoo`"):
            provider.check("aws:s3/bucket:Bucket", "b", {"websiteFoo": 1}, None)

    def test_a_misspelled_property_deep_inside_is_refused(
        self, provider: AwsProvider, make: Callable[..., Any], name: str
    ) -> None:
        bucket = make("aws:s3/bucket:Bucket", name).id
        with pytest.raises(MlopsError, match=r"rules?\[0\]\.statuss|Rules\[0\]\.statuss"):
            make(LIFECYCLE, name, bucket=bucket, rules=[{"id": "a", "statuss": "Enabled"}])

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
    def test_a_policy_that_nobody_could_judge_is_refused_before_it_is_applied(
        self, provider: AwsProvider, policy: Any, complaint: str
    ) -> None:
        with pytest.raises(MlopsError, match=complaint):
            provider.check("aws:iam/policy:Policy", "p", {"policy": policy}, None)

    def test_what_aws_refuses_is_told_with_its_code(self, make: Callable[..., Any], name: str) -> None:
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
    def test_what_somebody_else_made_is_not_taken_over(
        self, make: Callable[..., Any], type_: str, inputs: dict[str, Any]
    ) -> None:
        make(type_, "first", **inputs)
        with pytest.raises(MlopsError, match=r"[Ee]xists"):
            make(type_, "second", **inputs)


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
        s3.delete_object(Bucket=made.id, Key="a")  # leaves a marker and two versions
        with pytest.raises(MlopsError, match="BucketNotEmpty"):
            provider.delete("urn", type_, made.id, made.outputs, made.outputs)
        provider.delete("urn", type_, made.id, {"forceDestroy": True}, {})
        assert provider.read(type_, made.id, {}, {}) is None

    def test_a_disposable_bucket_under_governance_is_emptied_too(
        self, provider: AwsProvider, make: Callable[..., Any], client: Callable[[str], Any], name: str
    ) -> None:
        made = make("aws:s3/bucket:Bucket", name, objectLockEnabled=True, forceDestroy=True)
        make(LOCK, name, bucket=made.id, rule={"defaultRetention": {"mode": "GOVERNANCE", "days": 9}})
        client("s3").put_object(Bucket=made.id, Key="a", Body=b"1")
        provider.delete("urn", "aws:s3/bucket:Bucket", made.id, made.outputs, made.outputs)
        assert provider.read("aws:s3/bucket:Bucket", made.id, {}, {}) is None

    def test_what_is_kept_for_compliance_stays(
        self, provider: AwsProvider, make: Callable[..., Any], client: Callable[[str], Any], name: str
    ) -> None:
        made = make("aws:s3/bucket:Bucket", name, objectLockEnabled=True, forceDestroy=True)
        make(LOCK, name, bucket=made.id, rule={"defaultRetention": {"mode": "COMPLIANCE", "days": 9}})
        client("s3").put_object(Bucket=made.id, Key="a", Body=b"1")
        with pytest.raises(MlopsError, match="cannot be emptied"):
            provider.delete("urn", "aws:s3/bucket:Bucket", made.id, made.outputs, made.outputs)

    def test_settings_of_a_bucket_that_is_gone_are_gone(self, provider: AwsProvider) -> None:
        for token, row in TABLE.items():
            if token.startswith("aws:s3/bucket") and token != "aws:s3/bucket:Bucket" and "V2" not in token:
                assert provider.read(row.token, "never-was", {"bucket": "never-was"}, {}) is None
                provider.delete("urn", row.token, "never-was", {"bucket": "never-was"}, {})


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
        assert provider.diff(type_, old, new, {}) == Diff(())

    def test_one_action_more_is_another_policy(self, provider: AwsProvider) -> None:
        wider = json.loads(json.dumps(POLICY))
        wider["Statement"][0]["Action"].append("s3:DeleteObject")
        old, new = {"policy": json.dumps(POLICY)}, {"policy": json.dumps(wider)}
        assert provider.diff("aws:iam/policy:Policy", old, new, {}) == Diff(("policy",))

    def test_a_condition_is_compared_with_its_operator_and_values(self, provider: AwsProvider) -> None:
        def policy(operator: str, values: Any) -> dict[str, str]:
            statement = {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {operator: {"k": values}}}
            return {"policy": json.dumps({"Statement": statement})}

        def diff(new: dict[str, str]) -> tuple[str, ...]:
            return provider.diff("aws:iam/policy:Policy", policy("StringLike", ["a", "b"]), new, {}).changed

        assert diff(policy("StringLike", ["b", "a"])) == ()
        assert diff(policy("StringEquals", ["a", "b"])) == ("policy",)
        assert diff(policy("StringLike", "a")) == ("policy",)

    def test_a_changed_tag_is_named_by_its_path(self, provider: AwsProvider) -> None:
        old, new = {"tags": {"a": "1", "b": "2"}}, {"tags": {"b": "3", "a": "1"}}
        assert provider.diff("aws:s3/bucket:Bucket", old, new, {}).changed == ("tags.b",)

    def test_what_is_not_known_yet_is_a_change(self, provider: AwsProvider) -> None:
        type_ = "aws:s3/bucketPolicy:BucketPolicy"
        new = provider.check(type_, "p", {"bucket": UNKNOWN, "policy": UNKNOWN}, None)
        diff = provider.diff(type_, {"bucket": "a", "policy": "{}"}, new, {})
        assert diff.changed == ("bucket", "policy")
        assert diff.replace == ("bucket",)


class TestDrift:
    """What somebody changes behind the program's back is seen."""

    @pytest.fixture
    def drift(self, provider: AwsProvider, make: Callable[..., Any]) -> Callable[..., dict[str, Any] | None]:
        def after(type_: str, resource: str, meddle: Callable[[str], Any], **inputs: Any) -> dict[str, Any] | None:
            made = make(type_, resource, **inputs)
            meddle(made.id)
            return provider.read(type_, made.id, provider.check(type_, resource, inputs, made.outputs), made.outputs)

        return after

    def test_a_bucket_that_is_gone(self, drift: Any, client: Any, name: str) -> None:
        assert drift("aws:s3/bucket:Bucket", name, lambda id_: client("s3").delete_bucket(Bucket=id_)) is None

    def test_versioning_switched_off(self, drift: Any, client: Any, bucket: str, name: str) -> None:
        live = drift(
            "aws:s3/bucketVersioning:BucketVersioning",
            name,
            lambda id_: client("s3").put_bucket_versioning(Bucket=id_, VersioningConfiguration={"Status": "Suspended"}),
            bucket=bucket,
            versioningConfiguration={"status": "Enabled"},
        )
        assert live["versioningConfiguration"]["status"] == "Suspended"

    def test_encryption_weakened(self, drift: Any, client: Any, bucket: str, name: str) -> None:
        weaker = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
        live = drift(
            SSE,
            name,
            lambda id_: client("s3").put_bucket_encryption(Bucket=id_, ServerSideEncryptionConfiguration=weaker),
            bucket=bucket,
            rules=[{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": "k"}}],
        )
        assert live["rules"][0]["applyServerSideEncryptionByDefault"]["sseAlgorithm"] == "AES256"

    def test_a_bucket_policy_taken_away(self, drift: Any, client: Any, bucket: str, name: str) -> None:
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

    def test_a_bucket_opened_to_the_public(self, drift: Any, client: Any, bucket: str, name: str) -> None:
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

    def test_tags_changed(self, drift: Any, client: Any, name: str) -> None:
        live = drift(
            "aws:s3/bucket:Bucket",
            name,
            lambda id_: client("s3").put_bucket_tagging(
                Bucket=id_, Tagging={"TagSet": [{"Key": "owner", "Value": "nobody"}]}
            ),
            tags={"owner": "platform"},
        )
        assert live["tags"] == live["tagsAll"] == {"owner": "nobody"}

    def test_a_role_given_more(self, drift: Any, make: Any, client: Any, name: str) -> None:
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

    def test_a_role_that_trusts_somebody_else(self, drift: Any, client: Any, name: str) -> None:
        live = drift(
            "aws:iam/role:Role",
            name,
            lambda id_: client("iam").update_assume_role_policy(RoleName=id_, PolicyDocument=json.dumps(OTHER_TRUST)),
            assumeRolePolicy=json.dumps(TRUST),
        )
        assert "batch.amazonaws.com" in live["assumeRolePolicy"]

    def test_an_alias_moved_to_another_key(self, drift: Any, make: Any, client: Any, name: str) -> None:
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

    def test_a_key_about_to_be_deleted_is_gone(self, drift: Any, client: Any, name: str) -> None:
        assert (
            drift(
                "aws:kms/key:Key",
                name,
                lambda id_: client("kms").schedule_key_deletion(KeyId=id_, PendingWindowInDays=7),
            )
            is None
        )

    def test_a_database_described_otherwise(self, drift: Any, client: Any, name: str) -> None:
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

        # A commit is no drift, and a resumed create keeps what was committed.
        assert provider.read(type_, made.id, made.outputs, made.outputs) == made.outputs
        provider.create("urn", type_, provider.check(type_, name, inputs, None), resuming=True)
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
    def test_an_iceberg_table_that_cannot_be_made_is_refused(
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
        made = own.create("urn:a", self.TYPE, self.inputs())
        assert "no EKS Pod Identity" in made.recorded
        assert role_of(home, "c", "n", "s") == "arn:aws:iam::123456789012:role/r"
        assert role_of(home, "c", "n", "other") is None
        assert role_of(home, "another", "n", "s") is None
        held = json.loads((home / "pod-identity.json").read_text())
        assert held["c"][0].keys() == {"associationId", "namespace", "serviceAccount", "roleArn"}
        own.delete("urn:a", self.TYPE, made.id, self.inputs(), made.outputs)
        assert role_of(home, "c", "n", "s") is None

    def test_one_service_account_has_one_role(self, own: AwsProvider) -> None:
        own.create("urn:a", self.TYPE, self.inputs())
        with pytest.raises(MlopsError, match="n/s"):
            own.create("urn:b", self.TYPE, self.inputs(roleArn="arn:aws:iam::123456789012:role/other"))

    def test_associations_made_at_once_are_all_kept(self, own: AwsProvider, home: Path) -> None:
        from concurrent.futures import ThreadPoolExecutor

        def create(number: int) -> None:
            own.create(f"urn:{number}", self.TYPE, self.inputs(serviceAccount=f"s{number}"))

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(create, range(12)))
        assert all(role_of(home, "c", "n", f"s{number}") for number in range(12))


class TestFunctions:
    def test_who_and_where(self, provider: AwsProvider) -> None:
        caller = provider.invoke("aws:index/getCallerIdentity:getCallerIdentity", {})
        assert caller["accountId"] == "123456789012"
        assert caller["arn"].endswith(":user/operator")
        assert provider.invoke("aws:index/getRegion:getRegion", {})["region"] == provider.cloud.region
        assert provider.invoke("aws:index/getPartition:getPartition", {})["partition"] == "aws"

    def test_the_public_key_verifies_what_the_key_signed(
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

    def test_a_policy_document_is_rendered_as_pulumi_renders_it(self, provider: AwsProvider) -> None:
        found = provider.invoke(
            "aws:iam/getPolicyDocument:getPolicyDocument",
            {
                "statements": [
                    {
                        "sid": "Read",
                        "actions": ["s3:GetObject", "s3:ListBucket"],
                        "resources": ["*"],
                        "principals": [{"type": "AWS", "identifiers": ["a"]}],
                        "conditions": [{"test": "Bool", "variable": "aws:SecureTransport", "values": ["true"]}],
                    }
                ]
            },
        )
        assert json.loads(found["json"]) == {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "Read",
                    "Effect": "Allow",
                    "Action": ["s3:ListBucket", "s3:GetObject"],
                    "Resource": "*",
                    "Principal": {"AWS": "a"},
                    "Condition": {"Bool": {"aws:SecureTransport": "true"}},
                }
            ],
        }
        assert json.loads(found["minifiedJson"]) == json.loads(found["json"])

    def test_an_overriding_document_replaces_the_statement_of_the_same_sid(self, provider: AwsProvider) -> None:
        def one(effect: str) -> str:
            return json.dumps({"Statement": [{"Sid": "A", "Effect": effect, "Action": "*", "Resource": "*"}]})

        args = {"sourcePolicyDocuments": [one("Allow")], "overridePolicyDocuments": [one("Deny")]}
        found = provider.invoke("aws:iam/getPolicyDocument:getPolicyDocument", args)
        assert [s["Effect"] for s in json.loads(found["json"])["Statement"]] == ["Deny"]
        with pytest.raises(MlopsError, match="sid `A`"):
            provider.invoke(
                "aws:iam/getPolicyDocument:getPolicyDocument",
                {"sourcePolicyDocuments": [one("Allow"), one("Deny")]},
            )

    def test_the_registry_gives_a_token_to_log_in_with(self, provider: AwsProvider) -> None:
        assert provider.invoke("aws:ecr/getAuthorizationToken:getAuthorizationToken", {})["userName"] == "AWS"

    def test_a_cluster_cannot_be_looked_up_and_the_error_says_what_to_do(self, provider: AwsProvider) -> None:
        with pytest.raises(MlopsError, match=r"`mine`[\s\S]*kubeconfig"):
            provider.invoke("aws:eks/getCluster:getCluster", {"name": "mine"})

    def test_a_function_that_is_not_there_is_named_with_the_file_to_extend(self, provider: AwsProvider) -> None:
        with pytest.raises(MlopsError, match=r"getVpc[\s\S]*functions\.py"):
            provider.invoke("aws:ec2/getVpc:getVpc", {})


def test_the_properties_of_every_row_are_properties_that_pulumi_knows() -> None:
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

    for row in {id(row): row for row in TABLE.values()}.values():
        assert set(row.required) | set(row.optional) <= names(row), row.token


def _camel(snake: str) -> str:
    first, *rest = snake.split("_")
    return first + "".join(word.capitalize() for word in rest)
