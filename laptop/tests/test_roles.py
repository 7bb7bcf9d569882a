"""The permissions of each workload's role, judged by IAM's evaluation logic."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from laptop.aws.access.policy import Caller, Grants, Need, refusal
from tests.infra.recording import ACCOUNT, REGION, Recording

MODEL = "diabetes-progression"
DATASET = "diabetes-patients"
TABLE = "mlops_dev/diabetes_patients"

Allowed = Callable[..., bool]


def s3(purpose: str, key: str = "") -> str:
    return f"arn:aws:s3:::mlops-dev-{purpose}-{ACCOUNT}" + (f"/{key}" if key else "")


def glue(resource: str) -> str:
    return f"arn:aws:glue:{REGION}:{ACCOUNT}:{resource}"


@pytest.fixture
def allowed(graphs: dict[str, Recording]) -> Allowed:
    def ask(role: str, action: str, resource: str, **context: str) -> bool:
        document = {"Version": "2012-10-17", "Statement": graphs["dev"].policy(role)}
        arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
        caller = Caller(arn, frozenset({arn}), ACCOUNT)
        known = {name.replace("__", ":").replace("_", "-"): (value,) for name, value in context.items()}
        return refusal(caller, Grants((document,)), Need(action, resource, known), {}) is None

    return ask


def key_context(purpose: str) -> dict[str, str]:
    return {"kms__viaservice": f"s3.{REGION}.amazonaws.com", "kms__encryptioncontext__aws__s3__arn": s3(purpose)}


DATA_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/data"
SIGNING_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/signing"
SERVE, CHECK = f"serve-{MODEL}", f"check-{MODEL}"
TRAIN, INGEST = f"train-{MODEL}", f"ingest-{DATASET}"
MAINTENANCE, PREDICTIONS_MAINTENANCE = f"maintain-{DATASET}", f"maintain-{MODEL}-predictions"
MONITOR, OBSERVE = f"monitor-{DATASET}", f"observe-{MODEL}"
COMPACT = f"compact-{MODEL}"
PREDICT, PREDICTIONS = f"predict-{MODEL}", "mlops_dev/diabetes_progression_predictions"


@pytest.mark.parametrize(
    ("role", "action", "resource"),
    [
        (SERVE, "s3:GetObject", s3("registry", f"bundles/{MODEL}/sha256/ab/model.onnx")),
        (SERVE, "s3:GetObject", s3("registry", f"evidence/{MODEL}/sha256/ab/provenance.dsse.json")),
        (SERVE, "s3:PutObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl")),
        (SERVE, "s3:PutObject", s3("logs", f"inference/{MODEL}/counts/2026/01/01/1-2-3-0-ab-pod-1.json")),
        (MONITOR, "s3:GetObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (MONITOR, "s3:GetObject", s3("lake", f"quarantine/{DATASET}/ab.json")),
        (MONITOR, "s3:PutObject", s3("logs", f"monitoring/data/{DATASET}/20260101T000000Z-1.json")),
        (OBSERVE, "s3:GetObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl")),
        (OBSERVE, "s3:GetObject", s3("registry", f"bundles/{MODEL}/sha256/ab/baseline.json")),
        (OBSERVE, "s3:GetObject", s3("registry", f"ledger/{MODEL}/1.json")),
        (COMPACT, "s3:GetObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl")),
        (COMPACT, "s3:DeleteObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl")),
        (COMPACT, "s3:GetObject", s3("registry", f"bundles/{MODEL}/sha256/ab/schema.json")),
        (OBSERVE, "s3:PutObject", s3("logs", f"monitoring/models/{MODEL}/20260101T000000Z-1.json")),
        (TRAIN, "glue:GetTable", glue(f"table/{TABLE}")),
        (TRAIN, "s3:GetObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (TRAIN, "s3:PutObject", s3("logs", f"lineage/{TRAIN}/run-START.json")),
        (INGEST, "s3:PutObject", s3("logs", f"lineage/{INGEST}/run-START.json")),
        (INGEST, "s3:GetObject", s3("landing", f"{DATASET}/batch.csv")),
        (INGEST, "s3:PutObject", s3("lake", f"{TABLE}/metadata/1.json")),
        (INGEST, "s3:PutObject", s3("lake", f"quarantine/{DATASET}/run.parquet")),
        (INGEST, "glue:UpdateTable", glue(f"table/{TABLE}")),
        (INGEST, "glue:UpdateTable", glue("catalog")),
        (MAINTENANCE, "s3:DeleteObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (MAINTENANCE, "s3:DeleteObject", s3("lake", f"{TABLE}/metadata/1.json")),
        (MAINTENANCE, "s3:PutObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (MAINTENANCE, "s3:PutObject", s3("lake", f"quarantine/{DATASET}/expired/1.jsonl")),
        (MAINTENANCE, "s3:GetObject", s3("registry", f"bundles/{MODEL}/sha256/ab/bundle.json")),
        (MAINTENANCE, "glue:UpdateTable", glue(f"table/{TABLE}")),
        (MAINTENANCE, "s3:GetObject", s3("lake", f"{PREDICTIONS}/metadata/1.json")),
        (MAINTENANCE, "glue:GetTable", glue(f"table/{PREDICTIONS}")),
        (PREDICTIONS_MAINTENANCE, "s3:DeleteObject", s3("lake", f"{PREDICTIONS}/data/a.parquet")),
        (PREDICTIONS_MAINTENANCE, "s3:PutObject", s3("lake", f"quarantine/{MODEL}-predictions/expired/1.jsonl")),
        (PREDICTIONS_MAINTENANCE, "glue:UpdateTable", glue(f"table/{PREDICTIONS}")),
        (CHECK, "s3:GetObject", s3("registry", f"bundles/{MODEL}/sha256/ab/golden.json")),
        (PREDICT, "s3:GetObject", s3("registry", f"bundles/{MODEL}/sha256/ab/model.onnx")),
        (PREDICT, "s3:GetObject", s3("registry", f"evidence/{MODEL}/sha256/ab/provenance.dsse.json")),
        (PREDICT, "s3:GetObject", s3("landing", f"{MODEL}-predictions/patients.parquet")),
        (PREDICT, "s3:GetObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (PREDICT, "s3:PutObject", s3("lake", f"{PREDICTIONS}/data/a.parquet")),
        (PREDICT, "s3:PutObject", s3("logs", f"lineage/{PREDICT}/run-START.json")),
        (PREDICT, "glue:GetTable", glue(f"table/{TABLE}")),
        (PREDICT, "glue:CreateTable", glue(f"table/{PREDICTIONS}")),
        (PREDICT, "glue:UpdateTable", glue(f"table/{PREDICTIONS}")),
    ],
)
def test_a_role_has_the_permissions_it_needs(allowed: Allowed, role: str, action: str, resource: str) -> None:
    assert allowed(role, action, resource)


@pytest.mark.parametrize(
    ("role", "action", "resource"),
    [
        (SERVE, "s3:PutObject", s3("registry", f"bundles/{MODEL}/sha256/ab/model.onnx")),
        (SERVE, "s3:GetObject", s3("registry", "bundles/another-model/sha256/ab/model.onnx")),
        (SERVE, "s3:GetObject", s3("registry", f"ledger/{MODEL}/1.json")),
        (SERVE, "s3:GetObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (SERVE, "s3:GetObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl")),
        (SERVE, "s3:PutObject", s3("logs", "s3-access/registry/1")),
        (SERVE, "s3:PutObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/{'a' * 64}-00000.parquet")),
        (SERVE, "s3:PutObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/a.json")),
        (SERVE, "kms:Sign", SIGNING_KEY),
        (CHECK, "s3:GetObject", s3("registry", "bundles/another-model/sha256/ab/golden.json")),
        (CHECK, "s3:GetObject", s3("registry", f"evidence/{MODEL}/sha256/ab/provenance.dsse.json")),
        (CHECK, "s3:GetObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl")),
        (CHECK, "s3:PutObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl")),
        (CHECK, "kms:Sign", SIGNING_KEY),
        (OBSERVE, "s3:GetObject", s3("logs", "inference/another-model/2026/01/01/00/pod-1.jsonl")),
        (OBSERVE, "s3:PutObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl")),
        (OBSERVE, "s3:PutObject", s3("logs", f"monitoring/data/{DATASET}/1.json")),
        (OBSERVE, "s3:PutObject", s3("registry", f"ledger/{MODEL}/1.json")),
        (OBSERVE, "s3:GetObject", s3("registry", "bundles/another-model/sha256/ab/baseline.json")),
        (OBSERVE, "s3:GetObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (OBSERVE, "s3:DeleteObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl")),
        (SERVE, "s3:DeleteObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl")),
        (COMPACT, "s3:DeleteObject", s3("logs", "inference/another-model/2026/01/01/00/pod-1.jsonl")),
        (COMPACT, "s3:DeleteObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/a.parquet")),
        (COMPACT, "s3:DeleteObject", s3("logs", f"inference/{MODEL}/counts/2026/01/01/1.json")),
        (COMPACT, "s3:DeleteObjectVersion", s3("logs", f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl")),
        (COMPACT, "s3:DeleteObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (COMPACT, "s3:PutObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl")),
        (COMPACT, "s3:PutObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/a.parquet")),
        (COMPACT, "s3:GetObject", s3("logs", "inference/another-model/2026/01/01/00/pod-1.jsonl")),
        (COMPACT, "s3:GetObject", s3("registry", f"ledger/{MODEL}/1.json")),
        (COMPACT, "cloudwatch:PutMetricData", "*"),
        (OBSERVE, "kms:Sign", SIGNING_KEY),
        (OBSERVE, "cloudwatch:PutMetricData", "*"),
        (MONITOR, "s3:PutObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (MONITOR, "s3:PutObject", s3("logs", "monitoring/data/another-dataset/1.json")),
        (MONITOR, "s3:GetObject", s3("landing", f"{DATASET}/batch.csv")),
        (MONITOR, "glue:UpdateTable", glue(f"table/{TABLE}")),
        (MONITOR, "kms:Sign", SIGNING_KEY),
        (MONITOR, "cloudwatch:PutMetricData", "*"),
        (TRAIN, "s3:DeleteObject", s3("registry", f"bundles/{MODEL}/sha256/ab/bundle.json")),
        (TRAIN, "s3:DeleteObjectVersion", s3("registry", f"bundles/{MODEL}/sha256/ab/bundle.json")),
        (TRAIN, "s3:BypassGovernanceRetention", s3("registry", f"bundles/{MODEL}/sha256/ab/bundle.json")),
        (TRAIN, "s3:PutObject", s3("registry", "bundles/another-model/sha256/ab/bundle.json")),
        (TRAIN, "s3:PutObject", s3("registry", f"ledger/{MODEL}/1.json")),
        (TRAIN, "s3:PutObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (TRAIN, "s3:GetObject", s3("lake", "mlops_dev/another_table/data/a.parquet")),
        (TRAIN, "s3:GetObject", s3("landing", f"{DATASET}/batch.csv")),
        (TRAIN, "s3:PutObject", s3("logs", f"lineage/{INGEST}/run-START.json")),
        (TRAIN, "glue:UpdateTable", glue(f"table/{TABLE}")),
        (TRAIN, "glue:GetTable", glue("table/mlops_dev/another_table")),
        (MAINTENANCE, "s3:DeleteObject", s3("lake", "mlops_dev/diabetes_patients_2/data/a.parquet")),
        (MAINTENANCE, "s3:DeleteObject", s3("lake", "mlops_dev/another_table/data/a.parquet")),
        (MAINTENANCE, "s3:DeleteObject", s3("lake", f"quarantine/{DATASET}/ab.json")),
        (MAINTENANCE, "s3:DeleteObject", s3("landing", f"{DATASET}/batch.csv")),
        (MAINTENANCE, "s3:DeleteObject", s3("registry", f"bundles/{MODEL}/sha256/ab/bundle.json")),
        (MAINTENANCE, "s3:DeleteObject", s3("logs", f"lineage/{INGEST}/run-START.json")),
        (MAINTENANCE, "s3:DeleteObjectVersion", s3("lake", f"{TABLE}/data/a.parquet")),
        (MAINTENANCE, "s3:GetObject", s3("registry", f"bundles/{MODEL}/sha256/ab/model.onnx")),
        (MAINTENANCE, "s3:GetObject", s3("landing", f"{DATASET}/batch.csv")),
        (MAINTENANCE, "s3:PutObject", s3("lake", f"quarantine/{DATASET}/run.parquet")),
        (MAINTENANCE, "s3:PutObject", s3("registry", f"bundles/{MODEL}/sha256/ab/bundle.json")),
        (MAINTENANCE, "glue:UpdateTable", glue("table/mlops_dev/another_table")),
        (MAINTENANCE, "glue:DeleteTable", glue(f"table/{TABLE}")),
        (MAINTENANCE, "s3:GetObject", s3("lake", f"{PREDICTIONS}/data/a.parquet")),
        (MAINTENANCE, "s3:DeleteObject", s3("lake", f"{PREDICTIONS}/metadata/1.json")),
        (MAINTENANCE, "glue:UpdateTable", glue(f"table/{PREDICTIONS}")),
        (PREDICTIONS_MAINTENANCE, "s3:DeleteObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (PREDICTIONS_MAINTENANCE, "s3:GetObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (PREDICTIONS_MAINTENANCE, "glue:CreateTable", glue(f"table/{PREDICTIONS}")),
        (MAINTENANCE, "cloudwatch:PutMetricData", "*"),
        (INGEST, "s3:PutObject", s3("landing", f"{DATASET}/batch.csv")),
        (INGEST, "s3:GetObject", s3("landing", "another-dataset/batch.csv")),
        (INGEST, "s3:DeleteObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (INGEST, "s3:PutObject", s3("registry", f"bundles/{MODEL}/sha256/ab/bundle.json")),
        (INGEST, "glue:UpdateTable", glue("table/mlops_dev/another_table")),
        (INGEST, "glue:DeleteTable", glue(f"table/{TABLE}")),
        (INGEST, "kms:Sign", SIGNING_KEY),
        (INGEST, "glue:CreateTable", glue(f"table/{TABLE}")),
        (PREDICT, "s3:GetObject", s3("landing", f"{DATASET}/batch.csv")),
        (PREDICT, "s3:PutObject", s3("landing", f"{MODEL}-predictions/patients.parquet")),
        (PREDICT, "s3:GetObject", s3("registry", "bundles/another-model/sha256/ab/model.onnx")),
        (PREDICT, "s3:PutObject", s3("registry", f"bundles/{MODEL}/sha256/ab/model.onnx")),
        (PREDICT, "s3:GetObject", s3("registry", f"ledger/{MODEL}/1.json")),
        (PREDICT, "s3:PutObject", s3("lake", f"{TABLE}/data/a.parquet")),
        (PREDICT, "s3:DeleteObject", s3("lake", f"{PREDICTIONS}/data/a.parquet")),
        (PREDICT, "s3:GetObject", s3("lake", "mlops_dev/another_predictions/data/a.parquet")),
        (PREDICT, "s3:GetObject", s3("logs", f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl")),
        (PREDICT, "glue:UpdateTable", glue(f"table/{TABLE}")),
        (PREDICT, "glue:CreateTable", glue("table/mlops_dev/another_predictions")),
        (PREDICT, "glue:DeleteTable", glue(f"table/{PREDICTIONS}")),
        (PREDICT, "kms:Sign", SIGNING_KEY),
    ],
)
def test_a_role_has_no_other_permissions(allowed: Allowed, role: str, action: str, resource: str) -> None:
    assert not allowed(role, action, resource)


def test_a_monitor_sends_metrics_to_the_namespace_of_its_environment_only(allowed: Allowed) -> None:
    assert allowed(MONITOR, "cloudwatch:PutMetricData", "*", cloudwatch__namespace="mlops-dev")
    assert not allowed(MONITOR, "cloudwatch:PutMetricData", "*", cloudwatch__namespace="mlops-prod")


@pytest.mark.parametrize("kind", ["bundles", "evidence", "runs"])
def test_training_adds_to_the_registry_but_replaces_nothing(allowed: Allowed, kind: str) -> None:
    resource = s3("registry", f"{kind}/{MODEL}/x.json")
    assert allowed(TRAIN, "s3:PutObject", resource, s3__if_none_match="*")
    assert not allowed(TRAIN, "s3:PutObject", resource)
    assert not allowed(TRAIN, "s3:PutObject", resource, s3__if_match='"etag"')


def test_compaction_adds_parquet_files_and_replaces_nothing(allowed: Allowed) -> None:
    folder = f"inference/{MODEL}/2026/01/01/00"
    assert allowed(COMPACT, "s3:PutObject", s3("logs", f"{folder}/a.parquet"), s3__if_none_match="*")
    assert not allowed(COMPACT, "s3:PutObject", s3("logs", f"{folder}/pod-1.jsonl"), s3__if_none_match="*")


def test_training_can_sign_only_with_the_verified_algorithm(allowed: Allowed) -> None:
    right = {"kms__signingalgorithm": "ECDSA_SHA_256", "kms__messagetype": "RAW"}
    assert allowed(TRAIN, "kms:Sign", SIGNING_KEY, **right)
    assert not allowed(TRAIN, "kms:Sign", SIGNING_KEY, **{**right, "kms__messagetype": "DIGEST"})
    assert not allowed(TRAIN, "kms:Sign", SIGNING_KEY)
    assert not allowed(TRAIN, "kms:Sign", DATA_KEY, **right)


def test_a_role_can_use_the_data_key_only_for_its_buckets_and_through_s3(allowed: Allowed) -> None:
    assert allowed(SERVE, "kms:Decrypt", DATA_KEY, **key_context("registry"))
    assert not allowed(SERVE, "kms:Decrypt", DATA_KEY, **key_context("lake"))
    assert not allowed(SERVE, "kms:GenerateDataKey", DATA_KEY, **key_context("registry"))
    assert not allowed(SERVE, "kms:Decrypt", DATA_KEY)


def test_a_role_can_list_only_its_prefixes(allowed: Allowed) -> None:
    assert allowed(SERVE, "s3:ListBucket", s3("registry"), s3__prefix=f"bundles/{MODEL}/sha256/ab/")
    assert not allowed(SERVE, "s3:ListBucket", s3("registry"), s3__prefix="bundles/another-model/")
    assert not allowed(SERVE, "s3:ListBucket", s3("registry"))


def test_no_role_can_change_policies_and_only_maintenance_and_compaction_delete(graph: Recording) -> None:
    for role in graph.of_type("aws:iam/rolePolicy:RolePolicy"):
        actions = {action for statement in graph.policy(role) for action in statement["Action"]}
        assert not [action for action in actions if "*" in action or "Policy" in action]
        deleting = [action for action in actions if "Delete" in action]
        assert deleting == (["s3:DeleteObject"] if role.startswith(("compact-", "maintain-")) else [])
        others = {action for action in actions if action.split(":")[0] not in ("s3", "kms", "glue")}
        assert others <= {"cloudwatch:PutMetricData"}


def test_a_role_trusts_only_its_service_account_in_its_cluster(graph: Recording) -> None:
    associations = graph.of_type("aws:eks/podIdentityAssociation:PodIdentityAssociation")
    roles = graph.of_type("aws:iam/role:Role")
    assert set(associations) == set(roles)
    for name, role in roles.items():
        (trust,) = json.loads(role.props["assumeRolePolicy"])["Statement"]
        association = associations[name]
        assert trust["Principal"] == {"Service": "pods.eks.amazonaws.com"}
        assert trust["Condition"]["StringEquals"] == {
            "aws:SourceAccount": ACCOUNT,
            "aws:RequestTag/eks-cluster-name": association.at("clusterName"),
            "aws:RequestTag/kubernetes-namespace": association.at("namespace"),
            "aws:RequestTag/kubernetes-service-account": name,
        }
        assert association.at("serviceAccount") == name
