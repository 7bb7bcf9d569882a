"""`mlops doctor --target aws`: each requirement is one finding, and every failure is a finding too."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import botocore.client
import botocore.exceptions as aws_errors
import pytest
import yaml
from boto3.session import Session
from botocore.parsers import ResponseParserError
from click.testing import CliRunner

from pipelines.cli.main import main, mlops
from pipelines.declarations.project import Project
from pipelines.targets.cluster_prerequisites import CLUSTER_KINDS, NAMESPACED_KINDS, check_cluster
from pipelines.targets.cluster_roles import RIGHTS, SPARK_RIGHTS, role_manifests
from pipelines.targets.prerequisites import check_account, check_aws, check_clusters, check_tools, is_aws
from pipelines.targets.target import Finding
from tests.infra.recording import edit
from tests.pipelines.targets import fake_cluster
from tests.pipelines.targets.fake_cluster import FakeCluster
from tests.sample_project import copy_as_forked

ENVIRONMENTS = ("dev", "staging", "prod")
IDENTITY = "arn:aws:sts::111122223333:assumed-role/admin/me"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = copy_as_forked(tmp_path / "project")
    monkeypatch.chdir(project)
    for name in ("AWS_PROFILE", "PYTHONPATH", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return Project(project)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """A complete cluster of dev, which KUBECONFIG names."""
    cluster = fake_cluster.complete()
    with fake_cluster.serving(cluster) as url:
        monkeypatch.setenv("KUBECONFIG", str(fake_cluster.write_kubeconfig(tmp_path / "kubeconfig", url)))
        yield cluster


def of(findings: Iterator[Finding] | list[Finding], name: str) -> Finding:
    """Return the finding with a name."""
    (found,) = [one for one in findings if one.name == name]
    return found


# The cluster


def test_a_complete_cluster_has_no_failed_finding(project: Project, cluster: FakeCluster) -> None:
    findings = list(check_cluster(project, ENVIRONMENTS))
    assert [one for one in findings if not one.ok] == []
    assert of(findings, "KUBECONFIG").found == "cluster mlops-dev, of dev"
    assert of(findings, "Argo Rollouts: running").found == "argo-rollouts/argo-rollouts: 1 available"
    assert of(findings, "ingress class of dev").found == "alb: kube-system/kube-system: 2 available"
    assert of(findings, "access for dev").found == f"{len(RIGHTS)} rights in models-dev"


def test_a_controller_that_does_not_run_is_found(project: Project, cluster: FakeCluster) -> None:
    cluster.objects[fake_cluster.DEPLOYMENTS] = fake_cluster.controllers(rollouts=0, load_balancer=0)
    findings = list(check_cluster(project, ENVIRONMENTS))
    assert [one.name for one in findings if not one.ok] == ["Argo Rollouts: running", "ingress class of dev"]
    assert of(findings, "Argo Rollouts: running").found == "argo-rollouts/argo-rollouts: none available"
    cluster.objects[fake_cluster.DEPLOYMENTS] = []
    assert of(check_cluster(project, ENVIRONMENTS), "Argo Rollouts: running").found == "no such controller"


@pytest.mark.parametrize(
    ("path", "finding"),
    [
        (f"{fake_cluster.CRDS}rollouts.argoproj.io", "Argo Rollouts: kinds"),
        (f"{fake_cluster.CRDS}analysistemplates.argoproj.io", "Argo Rollouts: kinds"),
        (fake_cluster.METRICS, "metrics API"),
        (f"{fake_cluster.DAEMON_SETS}eks-pod-identity-agent", "Pod Identity agent"),
        (f"{fake_cluster.DAEMON_SETS}aws-node", "network policies"),
        (fake_cluster.INGRESS_CLASS, "ingress class of dev"),
    ],
)
def test_a_missing_object_is_found(project: Project, cluster: FakeCluster, path: str, finding: str) -> None:
    del cluster.objects[path]
    assert [one.name for one in check_cluster(project, ENVIRONMENTS) if not one.ok] == [finding]


def test_a_metrics_api_without_a_server_is_found(project: Project, cluster: FakeCluster) -> None:
    cluster.objects[fake_cluster.METRICS]["status"]["conditions"][0]["status"] = "False"
    assert of(check_cluster(project, ENVIRONMENTS), "metrics API").found.endswith("registered, but not available")


def test_pod_metrics_are_needed_only_if_a_model_is_scaled_by_them(project: Project, cluster: FakeCluster) -> None:
    assert not [one for one in check_cluster(project, ENVIRONMENTS) if one.name == "pod metrics"]
    edit(project.model_file(project.model_names[0]), "serving", "replicas", "concurrency", value=8)
    found = of(check_cluster(project, ENVIRONMENTS), "pod metrics")
    assert (found.ok, found.found) == (False, "v1beta1.custom.metrics.k8s.io is not registered")
    assert "inference_requests_in_flight" in found.fix
    served = cluster.objects[fake_cluster.METRICS]
    cluster.objects[fake_cluster.METRICS.replace("v1beta1.", "v1beta1.custom.")] = served
    assert of(check_cluster(project, ENVIRONMENTS), "pod metrics").ok


def test_the_controllers_of_eks_auto_mode_need_no_deployment(project: Project, cluster: FakeCluster) -> None:
    cluster.objects[fake_cluster.INGRESS_CLASS]["spec"]["controller"] = "eks.amazonaws.com/alb"
    cluster.objects[fake_cluster.DEPLOYMENTS] = fake_cluster.controllers()[:1]
    assert of(check_cluster(project, ENVIRONMENTS), "ingress class of dev").ok


def test_missing_access_names_verbs_and_kinds(project: Project, cluster: FakeCluster) -> None:
    cluster.denied = {("delete", "rollouts"), ("patch", "rollouts"), ("patch", "namespaces"), ("create", "leases")}
    cluster.denied.add(("watch", "namespaces"))
    found = of(check_cluster(project, ENVIRONMENTS), "access for dev")
    expected = (
        "patch the namespace models-dev; watch namespaces; delete, patch rollouts; patch rollouts/status; create leases"
    )
    assert (found.ok, found.found) == (False, f"not allowed: {expected}")
    assert "mlops cluster roles --env dev --apply" in found.fix


def test_policies_that_nothing_enforces_are_found(project: Project, cluster: FakeCluster) -> None:
    cluster.objects[f"{fake_cluster.DAEMON_SETS}aws-node"] = fake_cluster.daemon_set("aws-node", 3)
    found = of(check_cluster(project, ENVIRONMENTS), "network policies")
    assert (found.ok, found.found) == (False, "aws-node: not enforced, which is the default")
    del cluster.objects[f"{fake_cluster.DAEMON_SETS}aws-node"]
    cluster.objects[f"{fake_cluster.DAEMON_SETS}cilium"] = fake_cluster.daemon_set("cilium", 3)
    assert of(check_cluster(project, ENVIRONMENTS), "network policies").ok


def test_an_agent_that_is_missing_on_a_node_is_found(project: Project, cluster: FakeCluster) -> None:
    agent = f"{fake_cluster.DAEMON_SETS}eks-pod-identity-agent"
    cluster.objects[agent] = fake_cluster.daemon_set("eks-pod-identity-agent", 2)
    found = of(check_cluster(project, ENVIRONMENTS), "Pod Identity agent")
    assert (found.ok, found.found) == (False, "2 of 3 nodes")


def test_eks_auto_mode_runs_both_agents_on_the_node(project: Project, cluster: FakeCluster) -> None:
    for name in ("aws-node", "eks-pod-identity-agent"):
        del cluster.objects[f"{fake_cluster.DAEMON_SETS}{name}"]
    kinds = cluster.objects[f"{fake_cluster.CRDS}rollouts.argoproj.io"]
    cluster.objects[fake_cluster.AUTO_MODE] = kinds
    findings = list(check_cluster(project, ENVIRONMENTS))
    assert of(findings, "Pod Identity agent").ok
    assert of(findings, "network policies").ok


def test_a_rollout_controller_that_does_not_verify_targets_is_found(project: Project, cluster: FakeCluster) -> None:
    for deployment in cluster.objects[fake_cluster.DEPLOYMENTS]:
        deployment["spec"]["template"] = fake_cluster.pods("--leader-elect")
    found = of(check_cluster(project, ENVIRONMENTS), "Argo Rollouts: flags")
    assert (found.ok, found.found) == (False, "expected --aws-verify-target-group, found --leader-elect")


def test_a_kubeconfig_of_another_cluster_is_found(
    project: Project, cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_cluster.serving(cluster) as url:
        file = fake_cluster.write_kubeconfig(tmp_path / "other", url, "arn:aws:eks:eu-west-1:1:cluster/shop")
        monkeypatch.setenv("KUBECONFIG", str(file))
        found = of(check_cluster(project, ENVIRONMENTS), "KUBECONFIG")
    assert (found.ok, found.found) == (False, "cluster shop, which no environment names")


def test_access_is_checked_for_every_kind_that_the_programs_manage(graphs_kinds: set[tuple[str, str]]) -> None:
    assert graphs_kinds <= {*CLUSTER_KINDS, *NAMESPACED_KINDS}


@pytest.fixture(scope="module")
def graphs_kinds(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """API group and resource of every Kubernetes object of dev."""
    from tests.infra.recording import record, release_everywhere

    project = release_everywhere(copy_as_forked(tmp_path_factory.mktemp("kinds") / "project"))
    types = {one.type for one in record(project, "dev").resources if one.package == "kubernetes"}
    kinds = set()
    for type_ in types:
        _, version, kind = type_.split(":")
        group = version.partition("/")[0]
        plural = f"{kind.lower()[:-1]}ies" if kind.endswith("y") else f"{kind.lower()}{'es' * kind.endswith('s')}"
        kinds.add(("" if group == "core" else group, plural if plural.endswith("s") else f"{plural}s"))
    return kinds


PATHS = (
    fake_cluster.REVIEWS,
    fake_cluster.DEPLOYMENTS,
    fake_cluster.METRICS,
    fake_cluster.INGRESS_CLASS,
    f"{fake_cluster.CRDS}rollouts.argoproj.io",
)


def pairs(places: Iterable[str], faults: Iterable[str]) -> list[Any]:
    """Return all pairs of a place and a fault. The fast tests have each place and each fault at least once."""
    listed = list(places), list(faults)
    fast = {tuple(each[at % len(each)] for each in listed) for at in range(max(map(len, listed)))}
    return [pytest.param(*pair, marks=() if pair in fast else pytest.mark.slow) for pair in product(*listed)]


@pytest.mark.parametrize(("path", "answer"), pairs(PATHS, fake_cluster.wrong_answers()))
def test_a_request_that_fails_in_any_way_is_a_finding(
    project: Project, cluster: FakeCluster, path: str, answer: str
) -> None:
    cluster.wrong[path] = fake_cluster.wrong_answers()[answer]
    failed = [one for one in check_cluster(project, ENVIRONMENTS) if not one.ok]
    assert path in cluster.asked
    assert failed
    assert all(one.fix and one.found for one in failed)


def broken_kubeconfigs(folder: Path) -> Iterator[Path]:
    """Yield kubeconfigs that lead to no cluster."""
    yield folder / "missing"
    yield folder
    for name, text in {
        "empty": "",
        "not-yaml": "a: [",
        "no-context": "apiVersion: v1\nkind: Config\n",
        "unknown-context": "current-context: here\ncontexts: []\nclusters: []\nusers: []\n",
    }.items():
        (folder / name).write_text(text)
        yield folder / name
    yield fake_cluster.write_kubeconfig(folder / "closed-port", "http://127.0.0.1:1")
    plugin = fake_cluster.write_kubeconfig(folder / "no-plugin", "http://127.0.0.1:1")
    text = plugin.read_text().replace('{"token": "t"}', '{"exec": {"command": "no-such-plugin", "apiVersion": "v1"}}')
    plugin.write_text(text)
    yield plugin


def test_a_kubeconfig_without_a_cluster_is_one_finding(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in broken_kubeconfigs(tmp_path):
        monkeypatch.setenv("KUBECONFIG", str(file))
        (finding,) = check_cluster(project, ENVIRONMENTS)
        assert (finding.name, finding.ok) == ("Kubernetes cluster", False), file
        assert finding.fix


# The account

AWS_ANSWERS: dict[str, dict[str, Any]] = {
    "GetCallerIdentity": {"Arn": IDENTITY},
    "ListBuckets": {"Buckets": []},
    "DescribeCluster": {"cluster": {"status": "ACTIVE", "resourcesVpcConfig": {"vpcId": "vpc-1"}}},
    "DescribeSubnets": {
        "Subnets": [
            {"AvailabilityZone": zone, "Tags": [{"Key": "kubernetes.io/role/internal-elb", "Value": "1"}]}
            for zone in ("a", "b")
        ]
    },
    "DescribeNatGateways": {"NatGateways": [{"State": "available"}]},
    "DescribeVpcEndpoints": {"VpcEndpoints": []},
    "SimulatePrincipalPolicy": {"EvaluationResults": []},
}


def refused(code: str, status: int) -> Exception:
    """Return the error of a refused call."""
    response: Any = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error: Exception = aws_errors.ClientError(response, "Call")
    return error


AWS_ERRORS = {
    "expired token": refused("ExpiredToken", 403),
    "invalid token": refused("InvalidClientTokenId", 403),
    "denied": refused("AccessDenied", 403),
    "unavailable": refused("ServiceUnavailable", 503),
    "server error": refused("500", 500),
    "no credentials": aws_errors.NoCredentialsError(),
    "partial credentials": aws_errors.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
    "no sign-on": aws_errors.UnauthorizedSSOTokenError(),
    "no endpoint": aws_errors.EndpointConnectionError(endpoint_url="https://sts.example"),
    "time-out": aws_errors.ReadTimeoutError(endpoint_url="https://sts.example"),
    "no region": aws_errors.NoRegionError(),
    "no XML": ResponseParserError("Unable to parse response"),
    "another answer": KeyError("EvaluationResults"),
}


def answer_aws(monkeypatch: pytest.MonkeyPatch, **errors: Exception) -> None:
    """Let AWS answer every call, except those given with their errors."""

    def call(self: Any, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if operation in errors:
            raise errors[operation]
        return AWS_ANSWERS[operation]

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    monkeypatch.setattr("boto3.Session", _shared_session)


@functools.cache
def _shared_session() -> Session:
    """Return one session, because each loads the models of its services anew."""
    return Session(aws_access_key_id="testing", aws_secret_access_key="testing")


def account_findings(project: Project) -> list[Finding]:
    return list(check_account(project, ENVIRONMENTS))


def test_a_complete_account_has_no_failed_finding(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_aws(monkeypatch)
    findings = account_findings(project)
    assert len(findings) == 17
    assert [one for one in findings if not one.ok] == []


@pytest.mark.parametrize(("operation", "error"), pairs(AWS_ANSWERS, AWS_ERRORS))
def test_an_aws_call_that_fails_in_any_way_is_a_finding(
    project: Project, monkeypatch: pytest.MonkeyPatch, operation: str, error: str
) -> None:
    answer_aws(monkeypatch, **{operation: AWS_ERRORS[error]})
    failed = [one for one in account_findings(project) if not one.ok]
    of_account = ("GetCallerIdentity", "SimulatePrincipalPolicy")
    assert len(failed) == (1 if operation in of_account else len(ENVIRONMENTS))
    assert all(one.found.startswith("cannot be checked: ") and one.fix for one in failed)


def test_actions_that_are_not_allowed_are_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    results = [
        {"EvalActionName": "kms:CreateKey", "EvalDecision": "implicitDeny"},
        {"EvalActionName": "s3:CreateBucket", "EvalDecision": "allowed"},
    ]
    answer_aws(monkeypatch)
    monkeypatch.setitem(AWS_ANSWERS, "SimulatePrincipalPolicy", {"EvaluationResults": results})
    found = of(account_findings(project), "AWS permissions")
    assert (found.ok, found.found) == (False, "not allowed: kms:CreateKey")
    assert found.fix.startswith("grant them to arn:aws:iam::111122223333:role/admin")


def test_an_unknown_profile_and_an_invalid_stack_are_findings(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_aws(monkeypatch)
    project.stack_file("staging").write_text("config: {}\n")
    failed = [one for one in account_findings(project) if not one.ok]
    assert {one.name for one in failed} == {"region of staging", "cluster of staging"}
    monkeypatch.undo()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    findings = list(check_aws(project))
    assert "nobody" in of(findings, "AWS account").found
    assert "Pulumi.staging.yaml" in of(findings, "environments").found


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:4566", "http://localhost:5000", "https://amazonaws.com.example"]
)
def test_an_emulated_account_is_not_taken_for_aws(
    project: Project, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    answer_aws(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    (finding,) = account_findings(project)
    assert (finding.ok, finding.found) == (False, f"an emulated account: {endpoint}")
    assert "unset AWS_ENDPOINT_URL" in finding.fix


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://sts.eu-west-1.amazonaws.com",
        "https://sts.cn-north-1.amazonaws.com.cn",
        "https://vpce-1.sts.eu-west-1.vpce.amazonaws.com",
    ],
)
def test_every_endpoint_of_aws_is_taken_for_aws(endpoint: str) -> None:
    assert is_aws(endpoint)


# The tools


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, **scripts: str) -> None:
    """Put shell scripts on a PATH that has nothing else."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo v99.0.1", "99.0.1"),
        ("echo v3.1.0", "expected version .* or newer, found 3.1.0"),
        ("echo", "expected version .* or newer, found no version"),
        ("exit 3", "expected version .* or newer, found no version"),
    ],
)
def test_the_version_of_the_cli_is_compared_with_the_sdk(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: str
) -> None:
    install(monkeypatch, tmp_path / "bin", pulumi=script)
    finding = of(check_tools(project), "Pulumi CLI")
    assert finding.ok is (script == "echo v99.0.1")
    assert re.fullmatch(found, finding.found)


def test_missing_tools_are_findings(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path / "bin")
    failed = {one.name for one in check_aws(project) if not one.ok}
    assert {"Pulumi CLI", "Pulumi language host", "aws", "kubectl", "gh", "policy pack"} <= failed


def test_doctor_never_ends_in_a_traceback(
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("not even this")

    install(monkeypatch, tmp_path / "bin", pulumi="exit 1", gh="exit 1", aws="exit 1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.setattr("boto3.Session", fail)
    monkeypatch.setattr("pipelines.github.gh.Gh.find", fail)
    assert main(["doctor", "--target", "aws"]) == 1
    output = capsys.readouterr()
    assert "things are missing for the aws target" in output.err
    assert "RuntimeError: not even this" in output.out
    assert "Traceback" not in output.out + output.err


def test_the_cluster_of_every_environment_is_checked_by_a_kubeconfig_of_its_own(
    project: Project, cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for the AWS CLI knows the clusters of dev and prod only."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    dev = Path(os.environ["KUBECONFIG"])
    (tmp_path / "prod").write_text(dev.read_text().replace("cluster/mlops-dev", "cluster/mlops-prod"))
    (binaries / "aws").write_text(
        "#!/bin/sh\n"
        'case "$4" in\n'
        f"  mlops-dev) cp {dev} $8 ;;\n"
        f"  mlops-prod) cp {tmp_path / 'prod'} $8 ;;\n"
        "  *) echo No cluster found for name: $4 >&2; exit 254 ;;\n"
        "esac\n"
    )
    (binaries / "aws").chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    found = {f"{one.name}{name}": one for name, one in check_clusters(project, ENVIRONMENTS)}
    assert found["access for dev (mlops-dev)"].ok
    assert found["access for prod (mlops-prod)"].ok
    assert found["cluster mlops-staging"].found == "cannot be reached: No cluster found for name: mlops-staging"
    assert "access for prod (mlops-dev)" not in found
    assert os.environ["KUBECONFIG"] == str(dev)


def test_the_preview_role_looks_and_does_nothing_else() -> None:
    """Any branch can use it. `get` of these subresources is more than a look: it connects to pods."""
    rights = (*RIGHTS, *SPARK_RIGHTS)
    assert {verb for right in rights for verb in right.preview} <= {"get", "list", "watch"}
    connecting = {"pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"}
    assert not [right.resource for right in rights if right.resource in connecting and right.preview]


def with_spark(project: Project) -> Project:
    engine = [{"property": "engine", "value": "spark"}]
    edit(project.contract_file(project.dataset_names[0]), "customProperties", value=engine)
    return project


def test_access_to_the_namespace_of_spark_is_checked_if_a_contract_needs_it(
    project: Project, cluster: FakeCluster
) -> None:
    assert not [one for one in check_cluster(project, ENVIRONMENTS) if "Spark" in one.name]
    with_spark(project)
    found = of(check_cluster(project, ENVIRONMENTS), "access for Spark in dev")
    assert (found.ok, found.found) == (True, f"{len(SPARK_RIGHTS)} rights in models-dev-spark")
    cluster.denied = {("create", "rolebindings"), ("patch", "namespaces")}
    found = of(check_cluster(project, ENVIRONMENTS), "access for Spark in dev")
    assert found.found == "not allowed: patch the namespace models-dev-spark; create rolebindings"
    assert "mlops cluster roles --env dev --apply" in found.fix


def test_the_roles_of_spark_are_printed_if_a_contract_needs_them(project: Project) -> None:
    def printed() -> list[dict[str, Any]]:
        result = CliRunner().invoke(mlops, ["cluster", "roles", "--env", "dev"])
        return list(yaml.safe_load_all(result.output))

    assert printed() == role_manifests("mlops", "dev", "models-dev")
    with_spark(project)
    assert printed() == role_manifests("mlops", "dev", "models-dev", "models-dev-spark")
    edit(project.stack_file("dev"), "config", "mlops:environment", "spark", value={"remote": "sc://elsewhere:15002"})
    assert printed() == role_manifests("mlops", "dev", "models-dev")


def test_rights_to_make_roles_and_pods_hold_in_the_namespace_of_spark_only() -> None:
    objects = role_manifests("mlops", "dev", "models-dev", "models-dev-spark")
    roles = [one for one in objects if one["kind"] == "Role"]
    assert {one["metadata"]["namespace"] for one in roles} == {"models-dev", "models-dev-spark"}

    def where(verb: str, resource: str) -> set[tuple[str, str]]:
        return {
            (one["metadata"]["name"], one["metadata"]["namespace"])
            for one in roles
            for rule in one["rules"]
            if verb in rule["verbs"] and resource in rule["resources"]
        }

    for resource in ("pods", "roles", "rolebindings", "deployments"):
        assert where("create", resource) == {("mlops-deploy", "models-dev-spark")}
    owned = [
        rule for one in objects if one["kind"] == "ClusterRole" for rule in one["rules"] if "resourceNames" in rule
    ]
    assert {tuple(rule["resourceNames"]) for rule in owned} == {("models-dev", "models-dev-spark")}
