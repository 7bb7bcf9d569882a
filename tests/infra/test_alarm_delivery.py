"""Alarms of models reach GitHub by EventBridge, if the environment says where."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra.bootstrap.permissions import boundary_statements, deploy_statements, preview_statements
from infra.policies import violations
from infra.scopes import Environment
from pipelines.declarations.environment import GitHubAlarms, Monitoring
from pipelines.declarations.model_monitoring import MODEL_CHECKS
from pipelines.targets.import_ids import GENERATED, import_id
from tests.infra.recording import (
    ACCOUNT,
    REGION,
    Recording,
    edit,
    record,
    record_bootstrap,
    release_everywhere,
)
from tests.infra.test_policy_sizes import layout
from tests.sample_project import ROOT, copy_as_forked

pytestmark = pytest.mark.slow

MODEL = "diabetes-progression"
RULE = "aws:cloudwatch/eventRule:EventRule"
TARGET = "aws:cloudwatch/eventTarget:EventTarget"
CONNECTION = "aws:cloudwatch/eventConnection:EventConnection"
DESTINATION = "aws:cloudwatch/eventApiDestination:EventApiDestination"
QUEUE = "aws:sqs/queue:Queue"
ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
GITHUB = {"repository": "acme/mlops"}


@pytest.fixture(scope="module")
def delivering(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    project = release_everywhere(copy_as_forked(tmp_path_factory.mktemp("delivering") / "project"))
    edit(project / "Pulumi.dev.yaml", "config", "mlops:environment", "monitoring", value={"github": GITHUB})
    return record(project, "dev")


def test_without_a_repository_nothing_is_delivered(graph: Recording) -> None:
    for type_ in (RULE, TARGET, CONNECTION, DESTINATION, QUEUE):
        assert graph.of_type(type_) == {}


def test_every_rule_holds_and_every_resource_is_found_again(delivering: Recording) -> None:
    assert [str(violation) for violation in violations(delivering.resources)] == []
    for one in delivering.resources:
        if one.type.startswith("aws:"):
            assert (import_id(one.type, one.props, lambda: ACCOUNT) is None) == (one.type in GENERATED)


def test_a_rule_accepts_only_what_the_monitor_of_the_model_says_about_it(delivering: Recording) -> None:
    rule = delivering.one(RULE, f"alarm-{MODEL}")
    assert rule.at("name") == f"mlops-dev-alarm-{MODEL}"
    assert json.loads(rule.at("eventPattern")) == {
        "source": [f"mlops-dev.monitor.{MODEL}"],
        "detail-type": ["alarm"],
        "detail": {"model": [MODEL], "environment": ["dev"]},
    }


def test_an_alarm_starts_the_workflow_and_is_retried_for_a_day_and_then_kept(delivering: Recording) -> None:
    target, queue = delivering.one(TARGET, f"alarm-{MODEL}"), delivering.one(QUEUE, "undelivered-alarms")
    body = target.at("inputTransformer", "inputTemplate").replace("<detail>", '{"model": "m"}')
    assert json.loads(body) == {"event_type": "alarm", "client_payload": {"model": "m"}}
    assert target.at("retryPolicy") == {"maximumEventAgeInSeconds": 86400, "maximumRetryAttempts": 185}
    assert target.at("deadLetterConfig", "arn") == queue.at("arn")
    destination = delivering.one(DESTINATION, "alarms")
    assert destination.at("invocationEndpoint") == "https://api.github.com/repos/acme/mlops/dispatches"
    alarm = delivering.one(ALARM, "undelivered-alarms")
    assert alarm.at("dimensions") == {"QueueName": queue.at("name")}
    assert alarm.at("treatMissingData") == "notBreaching"


def test_the_token_is_never_part_of_the_state_and_never_overwritten(delivering: Recording) -> None:
    connection = delivering.one(CONNECTION, "alarms")
    assert connection.at("authParameters") == {"apiKey": {"key": "Authorization", "value": "not set"}}
    assert set(delivering.ignored[connection.urn]) == {"authParameters", "authorizationType", "description"}
    taking_inputs = {"name", "region"}
    changeable = set(connection.props) - set(delivering.ignored[connection.urn]) - taking_inputs
    assert not changeable & {"invocationConnectivityParameters", "kmsKeyIdentifier"}, (
        "an update of these would set the placeholder again"
    )


def test_only_rules_of_this_environment_use_the_role_and_the_queue(delivering: Recording) -> None:
    role = delivering.one("aws:iam/role:Role", "alarm-delivery")
    (trust,) = json.loads(role.at("assumeRolePolicy"))["Statement"]
    rules = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/mlops-dev-*"
    assert trust["Condition"] == {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnLike": {"aws:SourceArn": rules},
    }
    (call,) = delivering.policy("alarm-delivery")
    assert call["Action"] == ["events:InvokeApiDestination"]
    assert call["Resource"] == [delivering.one(DESTINATION, "alarms").at("arn")]
    (send,) = json.loads(delivering.one(QUEUE, "undelivered-alarms").at("policy"))["Statement"]
    assert (send["Action"], send["Condition"]) == ("sqs:SendMessage", {"ArnLike": {"aws:SourceArn": rules}})


def test_a_model_that_is_not_released_has_no_rule(tmp_path: Path) -> None:
    project = copy_as_forked(tmp_path / "project")
    edit(project / "Pulumi.dev.yaml", "config", "mlops:environment", "monitoring", value={"github": GITHUB})
    graph = record(project, "dev")
    assert graph.of_type(RULE) == {}
    assert set(graph.of_type(QUEUE)) == {"undelivered-alarms"}


@pytest.mark.parametrize("name", ["m" * 40])
def test_the_name_of_a_rule_fits(name: str) -> None:
    environment = layout(1, "p" * 18, 19).environments[0]
    assert len(environment.event_rule_name(f"alarm-{name}")) == 64


def delivering_layout() -> tuple[Any, Environment]:
    made = layout(2, "mlops", 3)
    first, second = made.environments
    config = first.config.model_copy(update={"monitoring": Monitoring(github=GitHubAlarms(repository="acme/mlops"))})
    environment = Environment(first.name, first.project, config, first.account, first.region)
    return type(made)(made.scope, made.project, (environment, second)), environment


def test_the_deploy_role_makes_the_delivery_but_can_neither_read_nor_set_the_token() -> None:
    made, environment = delivering_layout()
    allowed = {
        action: statement["Resource"]
        for statements in deploy_statements(made, environment).values()
        for statement in statements
        if statement["Effect"] == "Allow"
        for action in statement["Action"]
    }
    assert "events:CreateConnection" in allowed
    assert not allowed.keys() & {"events:UpdateConnection", "secretsmanager:GetSecretValue", "events:PutEvents"}
    for action, resources in allowed.items():
        if action.startswith(("events:", "sqs:", "secretsmanager:")):
            assert all(environment.prefix in resource for resource in resources), action
    other = deploy_statements(made, made.environments[1])
    assert "alarms" not in other, "an environment without delivery needs no permissions for it"


def test_previews_only_look_at_the_delivery() -> None:
    made, _ = delivering_layout()
    actions = {action for part in preview_statements(made).values() for one in part for action in one["Action"]}
    about = {action for action in actions if action.startswith(("events:", "sqs:", "secretsmanager:"))}
    assert about
    assert all(action.split(":")[1].startswith(("Describe", "Get", "List")) for action in about)
    assert "secretsmanager:GetSecretValue" not in about


def test_pods_send_events_only_in_the_name_of_monitors() -> None:
    _, environment = delivering_layout()
    (send,) = [one for one in boundary_statements(environment) if "events:PutEvents" in one["Action"]]
    assert send["Condition"] == {"StringLike": {"events:source": f"{environment.prefix}.monitor.*"}}


def test_every_rule_holds_in_the_account_of_environments_that_deliver(tmp_path: Path) -> None:
    project = copy_as_forked(tmp_path / "project", "infra/bootstrap")
    for name in ("dev", "prod"):
        edit(project / f"Pulumi.{name}.yaml", "config", "mlops:environment", "monitoring", value={"github": GITHUB})
    graph = record_bootstrap(project)
    assert [str(violation) for violation in violations(graph.resources)] == []


def test_the_monitor_of_a_model_sends_alarms_in_its_own_name(delivering: Recording) -> None:
    job = delivering.one("kubernetes:batch/v1:CronJob", f"observe-{MODEL}")
    (container,) = job.at("spec", "jobTemplate", "spec", "template", "spec", "containers")
    assert container["command"][-3:] == ["--namespace", "mlops-dev", "--send-alarms"]
    (send,) = [one for one in delivering.policy(f"observe-{MODEL}") if one["Action"] == ["events:PutEvents"]]
    assert send["Resource"] == [f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default"]
    assert send["Condition"]["ForAllValues:StringEquals"]["events:source"] == [f"mlops-dev.monitor.{MODEL}"]


def test_a_monitor_without_delivery_sends_nothing(graphs: dict[str, Recording]) -> None:
    graph = graphs["dev"]
    job = graph.one("kubernetes:batch/v1:CronJob", f"observe-{MODEL}")
    (container,) = job.at("spec", "jobTemplate", "spec", "template", "spec", "containers")
    assert "--send-alarms" not in container["command"]
    assert "events:PutEvents" not in {action for one in graph.policy(f"observe-{MODEL}") for action in one["Action"]}


def test_every_alarm_links_what_to_do(delivering: Recording) -> None:
    page = (ROOT / "docs" / "on-call.md").read_text()
    headings = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in re.findall(r"^#+ (.+)$", page, re.M)}
    alarms = delivering.of_type(ALARM)
    assert len(alarms) >= 5
    for name, alarm in alarms.items():
        link = r" https://github\.com/acme/mlops/blob/main/docs/on-call\.md#([\w-]+)$"
        linked = re.search(link, alarm.at("alarmDescription"))
        assert linked is not None and linked[1] in headings, name


@pytest.mark.parametrize(
    ("api", "web"),
    [("https://api.github.com", "https://github.com"), ("https://api.acme.ghe.com", "https://acme.ghe.com")],
)
def test_links_lead_to_the_site_of_the_api(api: str, web: str) -> None:
    assert GitHubAlarms(repository="acme/mlops", api=api).web == web


@pytest.mark.parametrize("check", MODEL_CHECKS)
def test_every_check_of_a_model_has_a_section(check: str) -> None:
    assert f"\n### {check}\n" in (ROOT / "docs" / "on-call.md").read_text()
