"""The executable `pulumi-resource-aws`, spoken to as Pulumi's engine does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from google.rpc import status_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from infra.policies.resource_graph import UNKNOWN
from laptop import plugin_executables
from laptop.aws.account import Account
from laptop.aws.aws_provider import AwsProvider
from laptop.aws.provider_plugin import account_environ
from laptop.aws.table import TABLE, row_of
from laptop.engine.provider import IncompleteError, ResourceCall
from laptop.engine.wire import decode
from laptop.tests.engine.plugin_client import started, subject, wait_until_ended, wire
from pipelines.declarations.errors import MlopsError

pytestmark = pytest.mark.slow

BUCKET = "aws:s3/bucket:Bucket"
ROLE = "aws:iam/role:Role"
POLICY = "aws:iam/rolePolicy:RolePolicy"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"},
        ],
    }
)


@dataclass
class Plugin:
    """A client of the plugin."""

    stub: Any
    pid: int

    def configure(self, **config: Any) -> Any:
        return self.stub.Configure(provider_pb2.ConfigureRequest(args=wire(**config), acceptSecrets=True))

    def check(self, type_: str, name: str, news: Any, olds: Any = None) -> Any:
        return self.stub.Check(provider_pb2.CheckRequest(**subject(type_, name), news=news, olds=olds))

    def create(self, type_: str, name: str, properties: Any, *, preview: bool = False) -> Any:
        return self.stub.Create(
            provider_pb2.CreateRequest(**subject(type_, name), properties=properties, preview=preview)
        )

    def diff(self, type_: str, name: str, old: Any, new: Any, outputs: Any) -> Any:
        return self.stub.Diff(
            provider_pb2.DiffRequest(**subject(type_, name), id=name, old_inputs=old, olds=outputs, news=new)
        )

    def read(self, type_: str, name: str, id_: str, inputs: Any = None, outputs: Any = None) -> Any:
        return self.stub.Read(
            provider_pb2.ReadRequest(**subject(type_, name), id=id_, inputs=inputs, properties=outputs)
        )

    def delete(self, type_: str, name: str, id_: str, inputs: Any, outputs: Any) -> None:
        self.stub.Delete(
            provider_pb2.DeleteRequest(**subject(type_, name), id=id_, old_inputs=inputs, properties=outputs)
        )


@pytest.fixture(scope="session")
def executable(account: Account) -> Path:
    return plugin_executables.install(account.home.parent, "") / plugin_executables.AWS_PLUGIN


@pytest.fixture
def plugin(account: Account, executable: Path) -> Iterator[Plugin]:
    with started(executable, "127.0.0.1:1", environ=account.environ()) as (process, channel):
        plugin = Plugin(provider_pb2_grpc.ResourceProviderStub(channel), process.pid)
        plugin.configure(region=account.region)
        yield plugin


def test_a_resource_is_previewed_created_refreshed_changed_and_deleted(
    plugin: Plugin, client: Callable[[str], Any], name: str
) -> None:
    checked = plugin.check(BUCKET, name, wire(tags={"owner": "a"})).inputs
    bucket = decode(checked).values["bucket"]
    assert bucket.startswith(f"{name}-")

    planned = plugin.create(BUCKET, name, checked, preview=True)
    expected = decode(planned.properties).values
    assert planned.id == ""
    assert (expected["bucket"], expected["arn"], expected["id"]) == (bucket, UNKNOWN, UNKNOWN)
    assert client("s3").list_buckets(Prefix=bucket)["Buckets"] == []

    made = plugin.create(BUCKET, name, checked)
    outputs = decode(made.properties).values
    assert (made.id, outputs["arn"]) == (bucket, f"arn:aws:s3:::{bucket}")
    assert {"id", *row_of(BUCKET).computed} <= outputs.keys() & expected.keys()

    refreshed = plugin.read(BUCKET, name, made.id, checked, made.properties)
    assert (refreshed.inputs, refreshed.properties) == (checked, made.properties)
    client("s3").put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "owner", "Value": "b"}]})
    drifted = plugin.read(BUCKET, name, made.id, checked, made.properties)
    assert decode(drifted.inputs).values["tags"] == {"owner": "b"}
    assert plugin.diff(BUCKET, name, drifted.inputs, checked, drifted.properties).diffs == ["tags"]

    update = provider_pb2.UpdateRequest(
        **subject(BUCKET, name), id=made.id, old_inputs=drifted.inputs, olds=drifted.properties, news=checked
    )
    assert decode(plugin.stub.Update(update).properties).values["tags"] == {"owner": "a"}
    assert client("s3").get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "owner", "Value": "a"}]

    plugin.delete(BUCKET, name, made.id, checked, made.properties)
    gone = plugin.read(BUCKET, name, made.id, checked, made.properties)
    assert (gone.id, len(gone.properties)) == ("", 0)


def test_a_preview_of_an_update_keeps_what_does_not_change(plugin: Plugin, name: str) -> None:
    checked = plugin.check(BUCKET, name, wire()).inputs
    made = plugin.create(BUCKET, name, checked)
    news = plugin.check(BUCKET, name, wire(tags={"owner": UNKNOWN}), checked).inputs
    update = provider_pb2.UpdateRequest(
        **subject(BUCKET, name), id=made.id, old_inputs=checked, olds=made.properties, news=news, preview=True
    )
    expected = decode(plugin.stub.Update(update).properties).values
    assert expected["arn"] == f"arn:aws:s3:::{made.id}"
    assert expected["tags"] == {"owner": UNKNOWN}


def test_an_unknown_input_is_checked_with_the_others(plugin: Plugin, name: str) -> None:
    checked = plugin.check(POLICY, name, wire(role=UNKNOWN, policy={"Statement": [{"Resource": UNKNOWN}]}))
    values = decode(checked.inputs).values
    assert values["name"].startswith(f"{name}-")
    assert values["role"] is UNKNOWN
    assert not checked.failures


def test_a_replacement_is_announced_with_its_reason_and_order(plugin: Plugin, name: str) -> None:
    old = plugin.check(ROLE, name, wire(name=name, assumeRolePolicy=TRUST)).inputs
    new = plugin.check(ROLE, name, wire(name=name, path="/other/", assumeRolePolicy=TRUST), old).inputs
    found = plugin.diff(ROLE, name, old, new, old)
    assert (found.changes, list(found.replaces)) == (found.DIFF_SOME, ["path"])
    assert found.deleteBeforeReplace  # two roles cannot have one name
    assert found.detailedDiff["path"].kind == provider_pb2.PropertyDiff.UPDATE_REPLACE
    renamed = plugin.check(ROLE, name, wire(name=f"{name}-2", assumeRolePolicy=TRUST), old).inputs
    assert not plugin.diff(ROLE, name, old, renamed, old).deleteBeforeReplace
    reordered = wire(**{**decode(old).values, "assumeRolePolicy": json.dumps(json.loads(TRUST), sort_keys=True)})
    assert plugin.diff(ROLE, name, old, reordered, old).changes == found.DIFF_NONE


def test_an_import_reads_the_inputs_of_an_existing_resource(
    plugin: Plugin, client: Callable[[str], Any], name: str
) -> None:
    client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=TRUST, Description="by hand")
    found = plugin.read(ROLE, name, name)
    assert found.id == name
    imported = decode(found.inputs).values
    assert (imported["name"], imported["description"]) == (name, "by hand")
    same = plugin.check(ROLE, name, wire(name=name, assumeRolePolicy=TRUST, description="by hand"), found.inputs)
    assert plugin.diff(ROLE, name, found.inputs, same.inputs, found.properties).changes == 1
    assert plugin.read(ROLE, name, f"{name}-missing").id == ""


def test_secrets_are_taken_and_returned_marked(plugin: Plugin, name: str) -> None:
    checked = plugin.check(ROLE, name, wire("description", assumeRolePolicy=TRUST, description="a secret text"))
    made = plugin.create(ROLE, name, checked.inputs)
    for struct in (checked.inputs, made.properties):
        assert decode(struct).secrets == {("description",)}
    again = plugin.read(ROLE, name, made.id, checked.inputs, made.properties)
    assert decode(again.inputs).secrets == decode(again.properties).secrets == {("description",)}


def test_a_function_is_called(plugin: Plugin, account: Account) -> None:
    token = "aws:index/getCallerIdentity:getCallerIdentity"
    answer = getattr(plugin.stub.Invoke(provider_pb2.InvokeRequest(tok=token)), "return")
    assert answer["accountId"] == account.account


def test_an_invalid_input_is_a_check_failure(plugin: Plugin, name: str) -> None:
    (failure,) = plugin.check(BUCKET, name, wire(bucketName="b")).failures
    assert "has the property `bucketName`, which the laptop does not support" in failure.reason


def test_a_refusal_of_aws_is_the_message_of_the_call(plugin: Plugin, name: str) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        plugin.create(POLICY, name, wire(role=f"{name}-missing", name="p", policy=TRUST))
    assert failure.value.code() is grpc.StatusCode.UNKNOWN
    assert "NoSuchEntity" in failure.value.details()
    assert "Traceback" not in failure.value.details()


def test_after_a_cancellation_nothing_new_begins(plugin: Plugin, client: Callable[[str], Any], name: str) -> None:
    plugin.stub.Cancel(empty_pb2.Empty())
    with pytest.raises(grpc.RpcError) as failure:
        plugin.create(ROLE, name, wire(name=name, assumeRolePolicy=TRUST, path="/", maxSessionDuration=3600))
    assert failure.value.code() is grpc.StatusCode.CANCELLED
    assert not [role for role in client("iam").list_roles()["Roles"] if role["RoleName"] == name]


def test_a_created_resource_that_cannot_be_read_is_kept(
    account: Account, executable: Path, pod: Callable[..., Any], provider: AwsProvider, name: str
) -> None:
    may_create = pod({"Effect": "Allow", "Action": ["iam:CreateRole"], "Resource": "*"})
    environ = {
        **account.environ(),
        "AWS_ACCESS_KEY_ID": may_create.credentials["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": may_create.credentials["SecretAccessKey"],
        "AWS_SESSION_TOKEN": may_create.credentials["SessionToken"],
    }
    with started(executable, environ=environ) as (_, channel):
        plugin = Plugin(provider_pb2_grpc.ResourceProviderStub(channel), 0)
        plugin.configure(region=account.region)
        checked = plugin.check(ROLE, name, wire(name=name, assumeRolePolicy=TRUST)).inputs
        with pytest.raises(grpc.RpcError) as failure:
            plugin.create(ROLE, name, checked)
    ((_, packed),) = [item for item in failure.value.trailing_metadata() if item[0] == "grpc-status-details-bin"]
    detail = provider_pb2.ErrorResourceInitFailed()
    assert status_pb2.Status.FromString(packed).details[0].Unpack(detail)
    assert detail.id == name
    assert "AccessDenied" in detail.reasons[0]
    assert decode(detail.properties).values["name"] == name

    own = AwsProvider(environ, account.home)
    with pytest.raises(IncompleteError) as incomplete:
        own.create(ResourceCall(ROLE, own.check(ROLE, f"{name}-2", {"assumeRolePolicy": TRUST}, None), "urn"))
    assert provider.read(ResourceCall(ROLE, {}, id=incomplete.value.id)) is not None


def test_a_setting_without_effect_is_refused(plugin: Plugin) -> None:
    request = provider_pb2.CheckRequest(news=wire(region="eu-west-1", skipMetadataApiCheck=True, profile="work"))
    (failure,) = plugin.stub.CheckConfig(request).failures
    assert failure.property == "profile"


def test_the_schema_lists_the_supported_types(plugin: Plugin) -> None:
    schema = json.loads(plugin.stub.GetSchema(provider_pb2.GetSchemaRequest()).schema)
    assert schema["name"] == "aws"
    assert schema["version"] == plugin.stub.GetPluginInfo(empty_pb2.Empty()).version
    assert set(schema["resources"]) == set(TABLE)
    assert {"arn", "bucket"} <= schema["resources"][BUCKET]["properties"].keys()


def test_the_plugin_ends_when_the_cli_interrupts_it(account: Account, executable: Path) -> None:
    with started(executable, environ=account.environ()) as (process, _):
        pass
    wait_until_ended([process.pid])
    assert process.returncode == 0


class TestAccount:
    """The plugin works in the laptop's account only, so that no mistake reaches AWS."""

    def test_the_region_of_the_stack_is_used(self, account: Account) -> None:
        environ = account_environ(account.environ(), account.home, "us-east-1")
        assert (environ["AWS_REGION"], environ["AWS_DEFAULT_REGION"]) == ("us-east-1", "us-east-1")
        assert account_environ(account.environ(), account.home, None)["AWS_REGION"] == account.region

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"AWS_ENDPOINT_URL": ""}, "found no AWS_ENDPOINT_URL"),
            ({"AWS_ENDPOINT_URL": "https://s3.amazonaws.com"}, "found `https://s3.amazonaws.com`"),
            ({"AWS_SHARED_CREDENTIALS_FILE": ""}, "no AWS credentials"),
            ({"AWS_REGION": ""}, "no AWS region"),
        ],
    )
    def test_a_shell_that_points_elsewhere_is_refused(
        self, account: Account, changes: dict[str, str], expected: str
    ) -> None:
        with pytest.raises(MlopsError, match="mlops laptop env") as failure:
            account_environ({**account.environ(), **changes}, account.home, None)
        assert expected in str(failure.value)

    def test_a_stopped_laptop_is_named(self, account: Account, tmp_path: Path) -> None:
        with pytest.raises(MlopsError, match="laptop is not running") as failure:
            account_environ(account.environ(), tmp_path / "aws", None)
        assert "mlops laptop start" in str(failure.value)

    def test_the_refusal_reaches_the_cli(self, account: Account, executable: Path) -> None:
        with started(executable, environ={**account.environ(), "AWS_ENDPOINT_URL": "http://x"}) as (_, channel):
            plugin = Plugin(provider_pb2_grpc.ResourceProviderStub(channel), 0)
            with pytest.raises(grpc.RpcError) as failure:
                plugin.configure()
        assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "expected its account" in failure.value.details()
