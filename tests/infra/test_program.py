"""Resources that the program of an environment declares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pulumi import RunError

from infra.components.glue_columns import glue_type
from infra.policies import violations
from infra.policies.resource_graph import UNKNOWN, plain
from infra.policies.stack import TAGGABLE
from infra.scopes import Environment
from pipelines.data.columns import iceberg_type
from pipelines.declarations.canary_settings import CanarySettings
from pipelines.declarations.contract import Column
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import DeclarationError
from pipelines.declarations.inference_logging import LogPolicy
from pipelines.declarations.live_models import FOUNDATION_ONLY
from pipelines.declarations.project import Project
from pipelines.declarations.sql_types import PLAIN_TYPES
from pipelines.prediction.__main__ import REFUSED
from pipelines.serving.check import FAILED, INCONCLUSIVE
from tests.infra.recording import (
    ACCOUNT,
    BUNDLE,
    IMAGE,
    REGION,
    Recording,
    edit,
    record,
    release_everywhere,
)
from tests.sample_project import PROJECT, copy_as_forked

pytestmark = pytest.mark.slow

CRON_JOB = "kubernetes:batch/v1:CronJob"
ROLLOUT = "kubernetes:argoproj.io/v1alpha1:Rollout"
ANALYSIS_TEMPLATE = "kubernetes:argoproj.io/v1alpha1:AnalysisTemplate"
MODEL = "diabetes-progression"
CHECK = f"check-{MODEL}"
LIVE = {"name": "live", "valueFrom": {"fieldRef": {"fieldPath": "status.canary.stablePingPong"}}}
ARGUMENTS = [{"name": "bundle", "value": BUNDLE}, {"name": "seconds", "value": "1"}, LIVE]
ANALYSIS = {"analysis": {"templates": [{"templateName": CHECK}], "args": ARGUMENTS}}
INGRESS = "kubernetes:networking.k8s.io/v1:Ingress"
SERVICE = "kubernetes:core/v1:Service"
DATASET = "diabetes-patients"
REPOSITORY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/mlops"


def test_every_rule_holds_in_every_environment(graph: Recording) -> None:
    assert [str(violation) for violation in violations(graph.resources)] == []


def test_every_rule_holds_before_anything_is_released(fresh: Recording) -> None:
    assert [str(violation) for violation in violations(fresh.resources)] == []


def test_the_first_environment_ingests_trains_and_monitors(graphs: dict[str, Recording]) -> None:
    jobs = {f"{job}-{DATASET}" for job in ("ingest", "maintain", "monitor")}
    jobs |= {f"maintain-{MODEL}-predictions", *(f"{job}-{MODEL}" for job in ("train", "observe", "compact", "predict"))}
    assert set(graphs["dev"].of_type(CRON_JOB)) == jobs


@pytest.mark.parametrize("environment", ["staging", "prod"])
def test_later_environments_only_monitor_their_models_and_predict_with_them(
    graphs: dict[str, Recording], environment: str
) -> None:
    jobs = {f"maintain-{MODEL}-predictions", *(f"{job}-{MODEL}" for job in ("observe", "compact", "predict"))}
    assert set(graphs[environment].of_type(CRON_JOB)) == jobs
    roles = jobs | {f"{job}-{MODEL}" for job in ("serve", "check")}
    assert set(graphs[environment].of_type("aws:iam/role:Role")) == roles


def test_the_descriptor_is_complete_and_names_the_resources(graph: Recording) -> None:
    descriptor = EnvironmentDescriptor.from_output(graph.outputs["descriptor"], "any")
    buckets = {bucket.props["bucket"] for bucket in graph.of_type("aws:s3/bucket:Bucket").values()}
    named = {descriptor.landing_bucket, descriptor.lake_bucket, descriptor.logs_bucket, descriptor.registry_bucket}
    assert len(named) == 4
    assert named <= buckets
    assert descriptor.account == ACCOUNT
    assert descriptor.catalog_database == graph.one("aws:glue/catalogDatabase:CatalogDatabase", "lake").props["name"]
    assert descriptor.repositories.serving == f"{REPOSITORY}/serving"
    assert descriptor.images.serving == f"{REPOSITORY}/serving@{IMAGE}"
    assert descriptor.endpoints == {MODEL: f"http://{MODEL}.elb.example"}


def test_kubernetes_resources_go_to_the_declared_cluster_whatever_the_current_context_is(graph: Recording) -> None:
    providers = graph.of_type("pulumi:providers:kubernetes")
    for provider in providers.values():
        assert provider.props["context"] == "right"
        assert provider.props["kubeconfig"] == "", "the path of a kubeconfig is not part of the state"
        assert provider.props["clusterIdentifier"].startswith(f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/mlops-")
    served = {one.type: graph.providers[one.urn] for one in graph.resources if one.type.startswith("kubernetes:")}
    assert served.pop("kubernetes:core/v1:Namespace") == providers["adopting"].urn
    assert set(served.values()) == {providers["cluster"].urn}


def test_an_environment_trusts_its_own_and_earlier_keys_but_no_later_ones(graphs: dict[str, Recording]) -> None:
    trusted = {name: set(graph.outputs["descriptor"]["trusted_keys"]) for name, graph in graphs.items()}
    assert trusted == {"dev": {"dev"}, "staging": {"dev", "staging"}, "prod": {"dev", "staging", "prod"}}


def test_without_a_pinned_image_jobs_are_left_out_and_a_note_says_what_to_pin(fresh: Recording) -> None:
    assert fresh.of_type(CRON_JOB) == {}
    assert fresh.of_type(ROLLOUT) == {}
    assert fresh.outputs["notes"] == [
        f"no training image is pinned (images.training in Pulumi.dev.yaml): ingest-{DATASET}, maintain-{DATASET}, "
        f"monitor-{DATASET}, train-{MODEL} are left out"
    ]
    descriptor = EnvironmentDescriptor.from_output(fresh.outputs["descriptor"], "dev")
    assert (descriptor.images.training, descriptor.images.serving, descriptor.endpoints) == (None, None, {})


def test_the_foundation_of_an_environment_has_no_images_and_no_endpoints(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOUNDATION_ONLY, "1")
    foundation = record(project, "dev")
    assert foundation.of_type(CRON_JOB) == foundation.of_type(ROLLOUT) == {}
    assert foundation.of_type("aws:s3/bucket:Bucket")
    assert foundation.outputs["notes"] == ["images and releases are left out until `mlops deploy` has judged them"]
    assert foundation.outputs["released"] == {}
    served = {"released": {MODEL: BUNDLE}}
    with pytest.raises(RunError, match=f"expected no endpoint, found {MODEL}"):
        record(project, "dev", last_outputs=served)


def test_there_are_no_notes_if_everything_is_pinned(graph: Recording) -> None:
    assert graph.outputs["notes"] == []


def test_a_release_without_a_serving_image_is_left_out_with_a_note(tmp_path: Path) -> None:
    project = release_everywhere(copy_as_forked(tmp_path / "project"))
    edit(project / "Pulumi.dev.yaml", "config", "mlops:environment", "images", "serving", value=None)
    recording = record(project, "dev")
    assert recording.of_type(ROLLOUT) == {}
    assert recording.outputs["notes"] == [
        "no serving image is pinned (images.serving in Pulumi.dev.yaml): the endpoint of "
        f"{MODEL} is left out, although {MODEL} is released here"
    ]


def test_the_program_calls_aws_only_for_identity_region_cluster_and_public_key(graph: Recording) -> None:
    assert set(graph.invoked) == {
        "aws:eks/getCluster:getCluster",
        "aws:index/getCallerIdentity:getCallerIdentity",
        "aws:index/getRegion:getRegion",
        "aws:kms/getPublicKey:getPublicKey",
    }


def test_a_first_preview_breaks_no_rule_and_leaves_only_computed_values_unknown(project: Path) -> None:
    preview = record(project, "dev", preview=True)
    assert [str(violation) for violation in violations(preview.resources)] == []
    assert preview.one("aws:s3/bucket:Bucket", "lake").at("bucket") == f"mlops-dev-lake-{ACCOUNT}"
    assert plain(preview.outputs["descriptor"]) is UNKNOWN
    container = preview.one(ROLLOUT, MODEL).at("spec", "template", "spec", "containers", 0)
    assert container["image"] == f"{REPOSITORY}/serving@{IMAGE}"
    assert container["env"][0]["value"] is UNKNOWN


@pytest.mark.parametrize("preview", [True, False])
def test_the_program_runs_with_plain_pulumi_mocks(project: Path, graphs: dict[str, Recording], preview: bool) -> None:
    mocked = record(project, "dev", echo=True, preview=preview)
    assert {resource.urn for resource in mocked.resources} == {resource.urn for resource in graphs["dev"].resources}


def test_two_runs_declare_the_same_resources(project: Path, graphs: dict[str, Recording]) -> None:
    second = record(project, "dev")
    assert {r.urn: r.plain for r in second.resources} == {r.urn: r.plain for r in graphs["dev"].resources}


def test_environments_do_not_share_physical_names(graphs: dict[str, Recording]) -> None:
    account_wide = ("aws:s3/bucket:Bucket", "aws:iam/role:Role", "aws:kms/alias:Alias")
    names = [
        resource.props.get("bucket") or resource.props["name"]
        for graph in graphs.values()
        for type_ in account_wide
        for resource in graph.of_type(type_).values()
    ]
    assert len(names) == len(set(names))


def test_a_long_role_name_is_cut_and_stays_unique() -> None:
    config = Project(PROJECT).stack("dev").config.environment
    environment = Environment("an-environment-with-a-long-name", "mlops", config, ACCOUNT, "eu-west-1")
    names = {environment.role_name(f"serve-{'m' * 38}{last}") for last in "ab"}
    assert len(names) == 2
    assert all(len(name) <= 64 for name in names)


def test_stateful_resources_are_protected_unless_disposable(graphs: dict[str, Recording]) -> None:
    for environment, graph in graphs.items():
        stateful = [
            graph.one("aws:s3/bucket:Bucket", "registry"),
            graph.one("aws:kms/key:Key", "data"),
            graph.one("aws:kms/key:Key", "signing"),
            graph.one("aws:glue/catalogTable:CatalogTable", DATASET),
        ]
        assert {resource.protect for resource in stateful} == {environment != "dev"}


def test_records_of_prod_cannot_be_deleted_and_data_of_dev_can(graphs: dict[str, Recording]) -> None:
    lock = "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration"
    kept = {name: graph.one(lock, "registry").at("rule", "defaultRetention") for name, graph in graphs.items()}
    assert kept["prod"] == {"mode": "COMPLIANCE", "days": 365}
    assert kept["dev"] == {"mode": "GOVERNANCE", "days": 1}
    bucket = "aws:s3/bucket:Bucket"
    assert graphs["dev"].one(bucket, "lake").props["forceDestroy"] is True
    assert graphs["prod"].one(bucket, "lake").props["forceDestroy"] is False


def test_current_objects_of_the_lake_and_the_registry_never_expire(graph: Recording) -> None:
    for bucket in ("landing", "lake", "registry"):
        rules = graph.one("aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration", bucket).props["rules"]
        assert not [rule for rule in rules if "expiration" in rule]


def test_each_contract_has_an_iceberg_table_whose_schema_pulumi_never_updates(project: Path, graph: Recording) -> None:
    table = graph.one("aws:glue/catalogTable:CatalogTable", DATASET)
    contract = Project(project).contract(DATASET)
    assert table.at("openTableFormatInput", "icebergInput") == {"metadataOperation": "CREATE", "version": "2"}
    assert table.at("name") == "diabetes_patients"
    assert table.at("storageDescriptor", "location").endswith(f"/{table.at('databaseName')}/diabetes_patients")
    columns = {column["name"]: column["type"] for column in table.at("storageDescriptor", "columns")}
    assert list(columns) == list(contract.columns)
    assert (columns["patient_id"], columns["age"], columns["bmi"]) == ("bigint", "int", "double")
    assert {"storageDescriptor", "parameters", "openTableFormatInput"} <= set(graph.ignored[table.urn])


@pytest.mark.parametrize(
    ("logical", "physical", "iceberg"),
    [
        *((logical, physical, stored) for logical, types in PLAIN_TYPES.items() for physical, stored in types.items()),
        *((logical, None, next(iter(types.values()))) for logical, types in PLAIN_TYPES.items()),
    ],
)
def test_glue_and_ingestion_give_a_column_the_same_type(logical: str, physical: str | None, iceberg: str) -> None:
    column = Column.model_validate({"name": "c", "logicalType": logical, "physicalType": physical})
    assert str(iceberg_type(column)) == iceberg
    assert {"bigint": "long"}.get(glue_type(column), glue_type(column)) == iceberg


def test_every_taggable_resource_is_tagged(graph: Recording) -> None:
    import pulumi_aws as aws

    def takes_tags(type_: str) -> bool:
        module, name = type_.split(":")[1].split("/")[0], type_.split(":")[2]
        return isinstance(getattr(getattr(getattr(aws, module), name), "tags", None), property)

    ours = {resource.type for resource in graph.resources if resource.package == "aws"}
    assert {type_ for type_ in ours if takes_tags(type_)} <= set(TAGGABLE)
    tagged = [resource for resource in graph.resources if resource.type in TAGGABLE]
    assert all(resource.at("tags", "cost-centre") == "ml-research" for resource in tagged)


def test_resources_of_a_model_are_tagged_with_it_and_shared_ones_with_platform(graph: Recording) -> None:
    roles = graph.of_type("aws:iam/role:Role")
    assert roles[f"serve-{MODEL}"].at("tags", "model") == MODEL
    assert graph.one("aws:s3/bucket:Bucket", "lake").at("tags", "model") == "platform"


def test_every_exemption_is_needed(graph: Recording) -> None:
    exempt = {(r.name, rule) for r in graph.resources for rule in r.at("exemptions") or {}}
    without = [
        type(r)(r.type, r.name, r.urn, {k: v for k, v in r.props.items() if k != "exemptions"}, r.protect, r.parent)
        for r in graph.resources
    ]
    found = {(violation.resource.split()[1], violation.rule) for violation in violations(without)}
    assert found == exempt
    assert exempt == {("access-logs", "s3-encrypted-with-customer-key"), ("access-logs", "s3-access-logged")}


@pytest.mark.parametrize("removed", ["BucketPublicAccessBlock", "BucketPolicy", "BucketVersioning", "BucketLogging",
                                     "BucketServerSideEncryptionConfiguration", "BucketOwnershipControls",
                                     "BucketLifecycleConfiguration", "BucketObjectLockConfiguration",
                                     "NetworkPolicy", "PodDisruptionBudget"])  # fmt: skip
def test_a_graph_without_a_safeguard_is_refused(graphs: dict[str, Recording], removed: str) -> None:
    left = [resource for resource in graphs["prod"].resources if not resource.type.endswith(f":{removed}")]
    assert violations(left)


def test_the_pods_of_a_release_spread_and_a_drained_node_takes_one_at_a_time(graphs: dict[str, Recording]) -> None:
    graph = graphs["prod"]
    pod = graph.one(ROLLOUT, MODEL).at("spec", "template")
    constraints = pod["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    for one in constraints:
        assert (one["maxSkew"], one["whenUnsatisfiable"]) == (1, "ScheduleAnyway"), "a failed zone stops no pod"
        assert one["matchLabelKeys"] == ["rollouts-pod-template-hash"], "the pods of one release, not of both"
    (budget,) = graph.of_type("kubernetes:policy/v1:PodDisruptionBudget").values()
    assert budget.at("spec", "maxUnavailable") == 1
    labels = pod["metadata"]["labels"]
    for selected in (budget.at("spec", "selector"), *(one["labelSelector"] for one in constraints)):
        assert selected["matchLabels"].items() <= labels.items()
    assert graph.one(ROLLOUT, MODEL).at("spec", "replicas") >= 2


def _pods(graph: Recording) -> list[dict[str, Any]]:
    templates = [job.at("spec", "jobTemplate", "spec", "template") for job in graph.of_type(CRON_JOB).values()]
    templates += [rollout.at("spec", "template") for rollout in graph.of_type(ROLLOUT).values()]
    providers = [
        metric["provider"]
        for found in graph.of_type(ANALYSIS_TEMPLATE).values()
        for metric in found.at("spec", "metrics")
    ]
    templates += [provider["job"]["spec"]["template"] for provider in providers]
    return [template["spec"] for template in templates]


def test_every_pod_gets_the_descriptor_with_its_own_image_only(graphs: dict[str, Recording]) -> None:
    for graph in graphs.values():
        for pod in _pods(graph):
            env = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
            given = EnvironmentDescriptor.model_validate_json(env["MLOPS_ENVIRONMENT"])
            exported = graph.outputs["descriptor"]
            assert given.trusted_keys == exported["trusted_keys"]
            assert given.endpoints == {}
            assert env["IMAGE_DIGEST"] == IMAGE
            assert [image for image in (given.images.training, given.images.serving) if image] == [
                pod["containers"][0]["image"]
            ]


def test_a_new_training_image_does_not_change_the_endpoints(tmp_path: Path, graphs: dict[str, Recording]) -> None:
    project = release_everywhere(copy_as_forked(tmp_path / "project"))
    other = "sha256:" + "2b" * 32
    edit(project / "Pulumi.dev.yaml", "config", "mlops:environment", "images", "training", value=other)
    changed = record(project, "dev")
    assert changed.one(ROLLOUT, MODEL).plain == graphs["dev"].one(ROLLOUT, MODEL).plain
    assert changed.one(CRON_JOB, f"train-{MODEL}").plain != graphs["dev"].one(CRON_JOB, f"train-{MODEL}").plain


def test_a_job_may_read_the_tables_that_its_contract_refers_to_and_no_others(tmp_path: Path) -> None:
    project = copy_as_forked(tmp_path / "project")
    contracts = project / "data-contracts"
    other = (
        (contracts / f"{DATASET}.odcs.yaml")
        .read_text()
        .replace(DATASET, "clinics")
        .replace("diabetes_patients", "clinics")
    )
    (contracts / "clinics.odcs.yaml").write_text(other)
    (contracts / "visits.odcs.yaml").write_text(
        other.replace("clinics", "visits").replace(
            "      - name: age\n", "      - name: age\n        relationships: [{to: clinics.age}]\n"
        )
    )
    release_everywhere(project)
    recording = record(project, "dev")
    policies = {
        name: json.dumps(recording.one("aws:iam/rolePolicy:RolePolicy", f"ingest-{name}").props["policy"])
        for name in ("visits", "clinics")
    }
    assert ":table/mlops_dev/clinics" in policies["visits"] and f"{DATASET}" not in policies["visits"]
    assert "visits" not in policies["clinics"].replace("ingest-visits", "")
    writes = [s for s in json.loads(json.loads(policies["visits"]))["Statement"] if "s3:PutObject" in s["Action"]]
    assert "clinics" not in json.dumps(writes)


def test_ingestion_follows_the_schedule_of_the_contract_and_training_waits_for_a_request(
    tmp_path: Path, graphs: dict[str, Recording]
) -> None:
    assert graphs["dev"].one(CRON_JOB, f"train-{MODEL}").at("spec", "suspend") is True
    daily = graphs["dev"].one(CRON_JOB, f"ingest-{DATASET}")
    assert daily.at("spec", "suspend") is False
    assert str(daily.at("spec", "schedule")).endswith(" 4 * * *")
    project = release_everywhere(copy_as_forked(tmp_path / "project"))
    edit(project / "data-contracts" / f"{DATASET}.odcs.yaml", "slaProperties", value=[])
    assert record(project, "dev").one(CRON_JOB, f"ingest-{DATASET}").at("spec", "suspend") is True


def test_each_job_runs_its_command(graphs: dict[str, Recording]) -> None:
    commands = {
        name: job.at("spec", "jobTemplate", "spec", "template", "spec", "containers", 0, "command")
        for name, job in graphs["dev"].of_type(CRON_JOB).items()
    }
    assert commands == {
        f"ingest-{DATASET}": ["python", "-m", "pipelines.data", "ingest", DATASET],
        f"maintain-{DATASET}": [
            *("python", "-m", "pipelines.data", "maintain", DATASET, "--namespace", "mlops-dev"),
            f"--predicting={MODEL}",
        ],
        f"monitor-{DATASET}": ["python", "-m", "pipelines.monitoring", "data", DATASET, "--namespace", "mlops-dev"],
        f"train-{MODEL}": ["python", "-m", "pipelines.training", MODEL],
        f"observe-{MODEL}": ["python", "-m", "pipelines.monitoring", "model", MODEL, "--namespace", "mlops-dev"],
        f"compact-{MODEL}": ["python", "-m", "pipelines.monitoring", "compact", MODEL],
        f"predict-{MODEL}": ["python", "-m", "pipelines.prediction", MODEL],
        f"maintain-{MODEL}-predictions": [
            *("python", "-m", "pipelines.data", "maintain", f"{MODEL}-predictions", "--namespace", "mlops-dev")
        ],
    }


def test_prediction_by_batch_waits_for_a_request_where_the_model_is_released(
    graphs: dict[str, Recording], fresh: Recording
) -> None:
    for graph in graphs.values():
        job = graph.one(CRON_JOB, f"predict-{MODEL}")
        assert job.at("spec", "suspend") is True
        rules = job.at("spec", "jobTemplate", "spec", "podFailurePolicy", "rules")
        assert rules[0]["onExitCodes"]["values"] == [REFUSED], "a refused input is not tried again"
    assert f"predict-{MODEL}" not in fresh.of_type("aws:iam/role:Role"), "nothing is released"


def test_a_model_may_read_the_datasets_that_it_declares_for_batch_predictions(
    tmp_path: Path, graphs: dict[str, Recording]
) -> None:
    before = json.dumps(graphs["dev"].policy(f"predict-{MODEL}"))
    project = copy_as_forked(tmp_path / "project")
    contract = (project / "data-contracts" / f"{DATASET}.odcs.yaml").read_text()
    (project / "data-contracts" / "newcomers.odcs.yaml").write_text(
        contract.replace(DATASET, "newcomers").replace("diabetes_patients", "newcomers")
    )
    declared = project / "models" / MODEL / "model.yaml"
    declared.write_text(declared.read_text() + "batch: {datasets: [newcomers]}\n")
    release_everywhere(project)
    after = json.dumps(record(project, "dev").policy(f"predict-{MODEL}"))
    assert "table/mlops_dev/newcomers" in after
    assert "newcomers" not in before


def test_an_endpoint_runs_and_names_the_released_bundle(graph: Recording) -> None:
    rollout = graph.one(ROLLOUT, MODEL)
    container = rollout.at("spec", "template", "spec", "containers", 0)
    assert container["command"] == ["python", "-m", "pipelines.serving", "--model", MODEL, "--bundle", BUNDLE]
    assert rollout.at("spec", "template", "metadata", "annotations", "mlops/bundle") == BUNDLE
    env = {variable["name"]: variable for variable in container["env"]}
    assert env["HOST"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    assert (env["PORT"]["value"], env["OMP_NUM_THREADS"]["value"]) == ("8080", "1")
    policy = LogPolicy.model_validate_json(env["LOG_POLICY"]["value"])
    assert policy == LogPolicy(sample=1.0, withheld=("sex",), groups=("sex",))
    assert container["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]


def test_traffic_shifts_between_two_services_in_the_configured_steps(graph: Recording) -> None:
    canary = graph.one(ROLLOUT, MODEL).at("spec", "strategy", "canary")
    assert canary["steps"] == [
        {"setWeight": 10},
        ANALYSIS,
        {"setWeight": 50},
        ANALYSIS,
    ]
    assert canary["scaleDownDelaySeconds"] == 600
    routing = canary["trafficRouting"]["alb"]
    assert {*canary["pingPong"].values(), routing["rootService"]} == set(graph.of_type(SERVICE))
    ingress = graph.one(INGRESS, routing["ingress"])
    backend = ingress.at("spec", "rules", 0, "http", "paths", 0, "backend", "service")
    assert backend == {"name": routing["rootService"], "port": {"name": "use-annotation"}}
    assert ingress.at("spec", "ingressClassName") == "alb"


def test_concurrency_adds_a_metric_of_pods_to_cpu_time(tmp_path: Path) -> None:
    replicas = {"minimum": 2, "maximum": 9, "concurrency": 8}
    project = release_everywhere(copy_as_forked(tmp_path / "project"))
    edit(project / "models" / MODEL / "model.yaml", "serving", "replicas", value=replicas)
    cpu, in_flight = (
        record(project, "dev").one("kubernetes:autoscaling/v2:HorizontalPodAutoscaler", MODEL).at("spec", "metrics")
    )
    assert cpu["resource"]["name"] == "cpu"
    assert in_flight["pods"] == {
        "metric": {"name": "inference_requests_in_flight"},
        "target": {"type": "AverageValue", "averageValue": "8"},
    }


def checks_of(graph: Recording) -> dict[str, tuple[dict[str, Any], CanarySettings]]:
    """Return metric → the spec of its job, and the settings of the check that the job runs."""
    found = {}
    for metric in graph.one(ANALYSIS_TEMPLATE, CHECK).at("spec", "metrics"):
        spec = metric["provider"]["job"]["spec"]
        (container,) = spec["template"]["spec"]["containers"]
        environment = {variable["name"]: variable.get("value") for variable in container["env"]}
        settings = CanarySettings.model_validate_json(environment["CHECK_SETTINGS"])
        assert environment["CHECK_SECONDS"] == "{{args.seconds}}"
        found[metric["name"]] = (spec, settings)
    return found


def test_jobs_with_their_own_identity_check_the_canary_in_each_step(graph: Recording) -> None:
    for spec, _ in checks_of(graph).values():
        pod = spec["template"]["spec"]
        command = ["python", "-m", "pipelines.serving.check", "--model", MODEL, "--bundle", "{{args.bundle}}"]
        (container,) = pod["containers"]
        assert container["command"] == [*command, "--live", "{{args.live}}"]
        for role, service in graph.one(ROLLOUT, MODEL).at("spec", "strategy", "canary", "pingPong").items():
            found = graph.one(SERVICE, service)
            url = f"http://{service}.{found.at('metadata', 'namespace')}.svc"
            assert {"name": f"CHECK_{role[:4].upper()}_URL", "value": url} in container["env"]
            assert found.at("spec", "ports", 0, "port") == 80, "the URL names no port"
        assert (pod["serviceAccountName"], pod["enableServiceLinks"]) == (CHECK, False)
    assert graph.one(ANALYSIS_TEMPLATE, CHECK).urn in graph.dependencies[graph.one(ROLLOUT, MODEL).urn]


def test_a_bad_canary_aborts_and_one_without_a_verdict_pauses(graph: Recording) -> None:
    """A metric that has reached its count, but no limit, is inconclusive, and Argo Rollouts pauses."""
    metrics = {metric["name"]: metric for metric in graph.one(ANALYSIS_TEMPLATE, CHECK).at("spec", "metrics")}
    assert set(metrics["harm"]) == {"name", "provider"}, "its first failure is one too many"
    limits = {name: metrics["verdict"].get(name) for name in ("count", "consecutiveSuccessLimit", "failureLimit")}
    assert limits == {"count": None, "consecutiveSuccessLimit": 1, "failureLimit": 1}, "Argo refuses a count of 1"
    checks = checks_of(graph)
    for name, outcome, status in (("harm", "failed", FAILED), ("verdict", "inconclusive", INCONCLUSIVE)):
        spec, settings = checks[name]
        (rule,) = spec["podFailurePolicy"]["rules"]
        assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [status])
        assert settings.fail_if == outcome


def test_the_bounds_of_a_canary_are_those_of_its_model(graph: Recording) -> None:
    gates = Project(PROJECT).model(MODEL).gates
    for spec, settings in checks_of(graph).values():
        assert settings.bounds.p99_ms == gates.latency.p99_ms
        assert settings.bounds.error_rate == gates.soak.maximum_error_rate
        assert spec["activeDeadlineSeconds"] > 1 + settings.wait_seconds


def test_only_an_environment_that_pauses_waits_for_a_verdict(graphs: dict[str, Recording]) -> None:
    settings = {
        environment: {name: one for name, (_, one) in checks_of(graphs[environment]).items()}
        for environment in ("dev", "prod")
    }
    assert {one.wait_seconds for one in settings["dev"].values()} == {0}
    assert (settings["dev"]["harm"].golden_only, settings["dev"]["verdict"].golden_only) == (False, True)
    assert {one.wait_seconds for one in settings["prod"].values()} == {1800}
    assert not any(one.golden_only for one in settings["prod"].values())


def test_pulumi_ignores_what_controllers_change(graph: Recording) -> None:
    assert graph.ignored[graph.one(ROLLOUT, MODEL).urn] == ("spec.replicas",)
    for name, service in graph.of_type(SERVICE).items():
        assert graph.ignored[service.urn] == (() if name == f"{MODEL}-root" else ("spec.selector",))
    weights = f'metadata.annotations["alb.ingress.kubernetes.io/actions.{MODEL}-root"]'
    managed = 'metadata.annotations["rollouts.argoproj.io/managed-alb-annotations"]'
    assert {weights, managed} <= set(graph.ignored[graph.one("kubernetes:networking.k8s.io/v1:Ingress", MODEL).urn])


def annotations_of(graph: Recording) -> dict[str, str]:
    """Return the settings of the load balancer, without their prefix."""
    found: dict[str, str] = graph.one(INGRESS, MODEL).at("metadata", "annotations")
    return {key.removeprefix("alb.ingress.kubernetes.io/"): value for key, value in found.items()}


def test_a_pod_serves_until_the_load_balancer_stops_sending(graph: Recording) -> None:
    pod = graph.one(ROLLOUT, MODEL).at("spec", "template", "spec")
    waits = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    attributes = annotations_of(graph)["target-group-attributes"]
    delay = int(attributes.removeprefix("deregistration_delay.timeout_seconds="))
    assert waits >= delay + 10, "the controller of the load balancer needs seconds to deregister a pod"
    assert pod["terminationGracePeriodSeconds"] >= waits + 30, "requests in flight may end"


def test_a_target_becomes_healthy_within_seconds(graph: Recording) -> None:
    settings = annotations_of(graph)
    interval, checks = int(settings["healthcheck-interval-seconds"]), int(settings["healthy-threshold-count"])
    assert interval * checks <= 10
    assert int(settings["healthcheck-timeout-seconds"]) < interval, "AWS requires it"


def test_the_identities_of_every_model_exist_before_its_first_release(fresh: Recording, graph: Recording) -> None:
    identities = {f"serve-{MODEL}", CHECK}
    association = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
    assert fresh.of_type(ROLLOUT) == {}
    for kind in ("aws:iam/role:Role", association, "kubernetes:core/v1:ServiceAccount"):
        assert identities <= set(fresh.of_type(kind))
    for name in (f"serve-{MODEL}", CHECK):
        needed = graph.one(association, name).urn
        assert needed in graph.dependencies[graph.one(ROLLOUT, MODEL).urn]


def test_the_identities_of_earlier_versions_are_kept(graph: Recording) -> None:
    """They belonged to the endpoint. Replacing them would create the same physical names twice."""
    endpoint = "mlops:serving:Endpoint"
    formerly = {f"serve-{MODEL}": endpoint, CHECK: f"{endpoint}$mlops:serving:CanaryCheck"}
    for name, parent in formerly.items():
        (urn,) = [urn for urn in graph.former_parents if urn.endswith(f"mlops:identity:Workload::{name}")]
        (former,) = graph.former_parents[urn]
        assert former.endswith(f"::{parent}::{MODEL}")


@pytest.mark.parametrize("architectures", [["amd64"], ["amd64", "arm64"]])
def test_pods_run_only_on_nodes_that_their_image_is_built_for(tmp_path: Path, architectures: list[str]) -> None:
    project = release_everywhere(copy_as_forked(tmp_path / "project"))
    edit(project / "Pulumi.dev.yaml", "config", "mlops:environment", "architectures", value=architectures)
    pods = _pods(record(project, "dev"))
    assert len(pods) > 2
    for pod in pods:
        (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert term["matchExpressions"] == [{"key": "kubernetes.io/arch", "operator": "In", "values": architectures}]


CERTIFICATE = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/1b2c"
PLAIN = {"listen-ports": '[{"HTTP": 80}]'}
ACCESS: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, Any], str]] = {
    "by default": ({}, PLAIN, {"path": "/v2"}, f"http://{MODEL}.elb.example"),
    "with a domain": ({"domain": "ml.example.com"}, PLAIN, {"path": "/v2"}, f"http://{MODEL}.ml.example.com"),
    "with a certificate": (
        {"domain": "ml.example.com", "certificate": CERTIFICATE},
        {
            "listen-ports": '[{"HTTPS": 443}]',
            "certificate-arn": CERTIFICATE,
            "ssl-policy": "ELBSecurityPolicy-TLS13-1-2-2021-06",
        },
        {"path": "/v2"},
        f"https://{MODEL}.ml.example.com",
    ),
    "for some addresses": (
        {"inbound_cidrs": ["10.1.0.0/16", "10.2.0.0/16"]},
        {**PLAIN, "inbound-cidrs": "10.1.0.0/16,10.2.0.0/16"},
        {"path": "/v2"},
        f"http://{MODEL}.elb.example",
    ),
    "for some security groups": (
        {"security_groups": ["sg-0123456789abcdef0"]},
        {**PLAIN, "security-groups": "sg-0123456789abcdef0", "manage-backend-security-group-rules": "true"},
        {"path": "/v2"},
        f"http://{MODEL}.elb.example",
    ),
    "with a shared load balancer": (
        {"shared_load_balancer": True},
        {**PLAIN, "group.name": "mlops-dev"},
        {"path": f"/v2/models/{MODEL}"},
        f"http://{MODEL}.elb.example",
    ),
    "with a shared load balancer and a domain": (
        {"shared_load_balancer": True, "domain": "ml.example.com"},
        {**PLAIN, "group.name": "mlops-dev"},
        {"path": "/v2"},
        f"http://{MODEL}.ml.example.com",
    ),
}


@pytest.mark.parametrize("case", ACCESS)
def test_an_endpoint_is_reached_as_configured(tmp_path: Path, case: str) -> None:
    access, expected, path, url = ACCESS[case]
    project = release_everywhere(copy_as_forked(tmp_path / "project"))
    edit(project / "Pulumi.dev.yaml", "config", "mlops:environment", "endpoints", value=access)
    graph = record(project, "dev")
    settings = annotations_of(graph)
    choices = {key for _, chosen, _, _ in ACCESS.values() for key in chosen}
    assert {key: value for key, value in settings.items() if key in choices} == expected
    (rule,) = graph.one(INGRESS, MODEL).at("spec", "rules")
    assert rule.get("host") == (f"{MODEL}.{access['domain']}" if "domain" in access else None)
    assert path.items() <= rule["http"]["paths"][0].items()
    assert graph.outputs["descriptor"]["endpoints"] == {MODEL: url}
    tagged = dict(tag.split("=") for tag in settings["tags"].split(","))
    assert tagged["model"] == ("platform" if access.get("shared_load_balancer") else MODEL)
    assert [str(violation) for violation in violations(graph.resources)] == []


@pytest.mark.parametrize(
    ("access", "says"),
    [
        ({"certificate": CERTIFICATE}, "certificate without domain"),
        ({"inbound_cidrs": ["10.0.0.0/8"], "security_groups": ["sg-0123456789abcdef0"]}, "found both"),
        ({"certificate": "arn:aws:iam::1:server-certificate/x", "domain": "ml.example.com"}, "certificate"),
        ({"domain": "*.example.com"}, "domain"),
    ],
)
def test_access_that_cannot_work_is_refused(tmp_path: Path, access: dict[str, Any], says: str) -> None:
    project = copy_as_forked(tmp_path / "project")
    edit(project / "Pulumi.dev.yaml", "config", "mlops:environment", "endpoints", value=access)
    with pytest.raises(DeclarationError, match=says):
        Project(project).stack("dev")


def test_only_the_load_balancer_and_the_canary_check_reach_an_endpoint_and_nothing_reaches_a_job(
    graphs: dict[str, Recording],
) -> None:
    policies = graphs["dev"].of_type("kubernetes:networking.k8s.io/v1:NetworkPolicy")
    assert policies[f"train-{MODEL}"].at("spec", "ingress") == []
    assert policies[f"ingest-{DATASET}"].at("spec", "ingress") == []
    (allowed,) = policies[f"serve-{MODEL}"].at("spec", "ingress")
    assert allowed["ports"] == [{"protocol": "TCP", "port": 8080}]
    *blocks, check = allowed["from"]
    assert {block["ipBlock"]["cidr"] for block in blocks} == {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}
    assert check == {"podSelector": {"matchLabels": {"app.kubernetes.io/name": CHECK}}}
    egress = policies[CHECK].at("spec", "egress")[-1]
    assert egress["to"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": f"serve-{MODEL}"}}}]
    assert egress["ports"] == allowed["ports"]
    assert policies[CHECK].at("spec", "ingress") == []


def test_every_pod_can_resolve_dns_names(graph: Recording) -> None:
    policies = graph.of_type("kubernetes:networking.k8s.io/v1:NetworkPolicy")
    for name in set(policies) - {"default-deny"}:
        dns = [rule for rule in policies[name].at("spec", "egress") if {"protocol": "UDP", "port": 53} in rule["ports"]]
        assert [rule["to"][0]["podSelector"]["matchLabels"] for rule in dns] == [{"k8s-app": "kube-dns"}]
    assert CHECK in policies


def test_pods_cannot_reach_the_node_metadata_service(graph: Recording) -> None:
    import ipaddress

    metadata = ipaddress.ip_address("169.254.169.254")
    for policy in graph.of_type("kubernetes:networking.k8s.io/v1:NetworkPolicy").values():
        blocks = [p["ipBlock"] for rule in policy.at("spec", "egress") or [] for p in rule["to"] if "ipBlock" in p]
        for block in blocks:
            inside = metadata in ipaddress.ip_network(block["cidr"])
            assert not inside or any(metadata in ipaddress.ip_network(part) for part in block["except"])


def test_every_workload_reaches_dns_aws_and_its_credentials_by_both_address_families(graph: Recording) -> None:
    policies = graph.of_type("kubernetes:networking.k8s.io/v1:NetworkPolicy")
    del policies["default-deny"]
    assert policies
    for policy in policies.values():
        dns, https, agent, *_ = policy.props["spec"]["egress"]
        assert [peer["ipBlock"]["cidr"] for peer in dns["to"][1:]] == ["169.254.20.10/32"], "NodeLocal DNSCache"
        assert {peer["ipBlock"]["cidr"] for peer in https["to"]} == {"0.0.0.0/0", "::/0"}
        assert all(peer["ipBlock"]["except"] for peer in https["to"]), "not to the instance metadata"
        assert {peer["ipBlock"]["cidr"] for peer in agent["to"]} == {"169.254.170.23/32", "fd00:ec2::23/128"}
