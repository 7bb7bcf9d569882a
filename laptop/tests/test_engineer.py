"""Who may do what in the account of a realistic laptop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner

from laptop import lifecycle
from laptop.aws.cloud import Cloud
from laptop.delays import realistic
from laptop.lifecycle import ADMINISTRATOR, Laptop
from laptop.shell_environment import shell_commands
from pipelines.cli.main import mlops
from pipelines.declarations.errors import MlopsError
from pipelines.registry import clients
from tests.sample_project import ROOT

pytestmark = pytest.mark.slow

ACCOUNT = "arn:aws:iam::123456789012"
FOR_JOBS = {"Federated": f"{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"}
FOR_PEOPLE = {"AWS": f"{ACCOUNT}:root"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    home = tmp_path_factory.mktemp("laptop")
    quick = realistic(["iam-policy=0.000001"], time_scale=1000)
    yield lifecycle.start(home, home, attached=True, delays=quick)
    lifecycle.stop(home)


def client(environ: dict[str, str], running: Laptop, service: str) -> Any:
    return Cloud(environ, running.home / "aws").client(service)


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_a_shell_has_the_rights_of_an_engineer_unless_it_asks_for_more(
    running: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ADMINISTRATOR, raising=False)
    engineer = client(running.environ_of_caller(), running, "sts").get_caller_identity()["Arn"]
    monkeypatch.setenv(ADMINISTRATOR, "1")
    administrator = client(running.environ_of_caller(), running, "sts").get_caller_identity()["Arn"]
    assert (engineer, administrator) == (f"{ACCOUNT}:user/engineer", f"{ACCOUNT}:user/operator")


def test_an_engineer_changes_nothing(running: Laptop) -> None:
    s3 = client(running.environ(administrator=False), running, "s3")
    assert s3.list_buckets()["Buckets"] == []
    with pytest.raises(ClientError) as refused:
        s3.create_bucket(Bucket="mine", CreateBucketConfiguration={"LocationConstraint": running.region})
    assert code(refused) == "AccessDenied"


@pytest.mark.parametrize("administrator", [False, True])
def test_nobody_but_a_job_takes_a_role_for_jobs(running: Laptop, administrator: bool) -> None:
    iam = client(running.environ(), running, "iam")
    for name, principal in (("jobs", FOR_JOBS), ("people", FOR_PEOPLE)):
        action = "sts:AssumeRoleWithWebIdentity" if name == "jobs" else "sts:AssumeRole"
        statement = {"Effect": "Allow", "Principal": principal, "Action": action}
        trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.create_role(RoleName=f"{name}-{administrator}", AssumeRolePolicyDocument=trust)
    sts = client(running.environ(administrator=administrator), running, "sts")
    assert sts.assume_role(RoleArn=f"{ACCOUNT}:role/people-{administrator}", RoleSessionName="me")["Credentials"]
    with pytest.raises(ClientError) as refused:
        sts.assume_role(RoleArn=f"{ACCOUNT}:role/jobs-{administrator}", RoleSessionName="me")
    assert code(refused) == "AccessDenied"


def test_commands_use_a_profile_of_the_laptop_but_none_of_another_account(
    running: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = {"Effect": "Allow", "Principal": FOR_PEOPLE, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    client(running.environ(), running, "iam").create_role(RoleName="lander", AssumeRolePolicyDocument=trust)
    with (running.home / "aws" / "config").open("a") as config:
        config.write(f"[profile land]\nrole_arn = {ACCOUNT}:role/lander\nsource_profile = default\n")

    environ = running.environ_of_caller({"AWS_PROFILE": "land"})
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert "assumed-role/lander/" in clients.client("sts").get_caller_identity()["Arn"]
    assert running.environ_of_caller({"AWS_PROFILE": "work"}) == running.environ_of_caller({})


def test_the_shell_gets_what_it_asks_for(running: Laptop) -> None:
    plain = "\n".join(shell_commands(running, {}))
    assert "engineer-credentials" in plain
    assert ADMINISTRATOR not in plain
    assert "http_proxy" not in plain
    more = "\n".join(shell_commands(running, {}, administrator=True, inside_vpc=True))
    member = "\n".join(shell_commands(running, {}, inside_vpc=True, security_groups=["sg-0123abcd"]))
    assert "engineer-credentials" not in more
    assert f"export {ADMINISTRATOR}=1" in more
    assert f"export http_proxy={running.proxy}\nexport https_proxy={running.proxy}\n" in more
    assert f"export SSL_CERT_FILE={running.home / 'cluster' / 'ca.crt'}" in more
    assert f"export https_proxy={running.proxy.replace('//', '//sg-0123abcd:laptop@')}" in member


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--security-group", "sg-0123abcd"], "--security-group: expected --inside-vpc with it, found nothing"),
        (["--inside-vpc", "--security-group", "callers"], "security group 'callers': expected sg- and 8 to 17 "),
    ],
)
def test_a_security_group_is_an_id_and_needs_the_private_network(options: list[str], problem: str) -> None:
    done = CliRunner().invoke(mlops, ["laptop", "env", *options])
    assert isinstance(done.exception, MlopsError)
    assert done.exception.what.startswith(problem)


def test_faults_of_load_balancers_need_some(running: Laptop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(running.home))
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(mlops, ["laptop", "fault", "dns-gone", "--seconds", "0.1"])
    assert (done.exit_code, done.output) == (0, "Runners cannot look up the names of load balancers, for 0.1 s.\n")
    other = lifecycle.start(tmp_path, tmp_path, attached=True)
    monkeypatch.setenv("MLOPS_HOME", str(other.home))
    done = CliRunner().invoke(mlops, ["laptop", "fault", "dns-gone"])
    lifecycle.stop(other.home)
    assert isinstance(done.exception, MlopsError)
    assert done.exception.fix == "start it with `mlops laptop start --realistic`."


def test_status_lists_the_delays_and_other_ones_are_refused(running: Laptop) -> None:
    assert "Realistic  load-balancer 0.15 s" in str(lifecycle.status(running.home))
    with pytest.raises(MlopsError, match=r"is already running: expected the delays \{\}, found"):
        lifecycle.start(running.home, running.root)
