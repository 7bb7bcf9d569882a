"""Delivery of the alarms of models: EventBridge rules that start the workflow `respond` on GitHub.

The token for GitHub never reaches this program: the connection is created with a placeholder, and a person sets the
token, which EventBridge keeps in AWS Secrets Manager.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.components.runbook import runbook
from infra.scopes import Environment
from pipelines.declarations.alarm_events import (
    ALARM_EVENT,
    NO_TOKEN,
    alarm_rule,
    alarm_source,
    connection_name,
    undelivered_queue,
)
from pipelines.declarations.environment import GitHubAlarms
from pipelines.declarations.model import Model

_EVENTS = "events.amazonaws.com"
_RETRY_SECONDS = 24 * 60 * 60
_RETRIES = 185
"""The most that EventBridge allows (Amazon EventBridge user guide, "How EventBridge retries delivering events")."""

_KEEP_SECONDS = 14 * 24 * 60 * 60
"""How long an undelivered alarm is kept; the most that SQS allows."""

_TEMPLATE = f'{{"event_type":"{ALARM_EVENT}","client_payload":<detail>}}'
_HEADERS = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}


@dataclass(frozen=True, kw_only=True)
class AlarmDeliveryArgs:
    """Arguments of `AlarmDelivery`.

    Attributes:
        environment: the environment whose alarms are delivered.
        github: where to.
        models: the models that are released in the environment.
    """

    environment: Environment
    github: GitHubAlarms
    models: Sequence[Model]


class AlarmDelivery(pulumi.ComponentResource):
    """One rule for each model, an API destination, and a queue for alarms that could not be delivered.

    A rule accepts events in the name of the model's monitor, and only about this model and environment. EventBridge
    tries for a day; then the alarm goes to the queue, whose own CloudWatch alarm goes off.
    """

    def __init__(self, name: str, args: AlarmDeliveryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:monitoring:AlarmDelivery", name, None, opts)
        environment, child = args.environment, pulumi.ResourceOptions(parent=self)
        queue = self._queue(environment, child)
        connection = aws.cloudwatch.EventConnection(
            name,
            name=connection_name(environment.prefix),
            description=f"GitHub, for the alarms of {environment.prefix}",
            authorization_type="API_KEY",
            auth_parameters={"api_key": {"key": "Authorization", "value": NO_TOKEN}},
            # The token is set outside of Pulumi, and an update of anything would set the placeholder again.
            opts=pulumi.ResourceOptions.merge(
                child,
                pulumi.ResourceOptions(ignore_changes=["authParameters", "authorizationType", "description"]),
            ),
        )
        destination = aws.cloudwatch.EventApiDestination(
            name,
            name=connection_name(environment.prefix),
            description=f"Starts the workflow respond of {args.github.repository}",
            connection_arn=connection.arn,
            http_method="POST",
            invocation_endpoint=f"{args.github.api}/repos/{args.github.repository}/dispatches",
            invocation_rate_limit_per_second=1,
            opts=child,
        )
        role = self._role(environment, destination, child)
        for model in args.models:
            rule = aws.cloudwatch.EventRule(
                f"alarm-{model.name}",
                name=environment.event_rule_name(alarm_rule(model.name)),
                description=f"Alarms of the monitor of {model.name} in {environment.name}",
                event_pattern=json.dumps(_pattern(environment, model.name), separators=(",", ":")),
                tags=environment.tags(model),
                opts=child,
            )
            aws.cloudwatch.EventTarget(
                f"alarm-{model.name}",
                rule=rule.name,
                target_id="github",
                arn=destination.arn,
                role_arn=role.arn,
                input_transformer={"input_paths": {"detail": "$.detail"}, "input_template": _TEMPLATE},
                http_target={"header_parameters": _HEADERS},
                retry_policy={"maximum_event_age_in_seconds": _RETRY_SECONDS, "maximum_retry_attempts": _RETRIES},
                dead_letter_config={"arn": queue.arn},
                opts=child,
            )
        self.register_outputs({})

    def _queue(self, environment: Environment, child: pulumi.ResourceOptions) -> aws.sqs.Queue:
        """Create the queue, to which only rules of this environment may send, and its alarm."""
        name = undelivered_queue(environment.prefix)
        send = {
            "Effect": "Allow",
            "Principal": {"Service": _EVENTS},
            "Action": "sqs:SendMessage",
            "Resource": environment.arn("sqs", name),
            "Condition": _from_rules(environment),
        }
        queue = aws.sqs.Queue(
            "undelivered-alarms",
            name=name,
            message_retention_seconds=_KEEP_SECONDS,
            sqs_managed_sse_enabled=True,
            policy=json.dumps({"Version": "2012-10-17", "Statement": [send]}),
            tags=environment.tags(),
            opts=child,
        )
        topics = list(environment.config.monitoring.alarm_topics)
        aws.cloudwatch.MetricAlarm(
            "undelivered-alarms",
            name=name,
            alarm_description=f"Alarms of {environment.prefix} did not reach GitHub: "
            f"{runbook(environment, 'alarms-that-did-not-reach-github')}",
            namespace="AWS/SQS",
            metric_name="ApproximateNumberOfMessagesVisible",
            dimensions={"QueueName": name},
            statistic="Maximum",
            comparison_operator="GreaterThanThreshold",
            threshold=0,
            period=300,
            evaluation_periods=1,
            treat_missing_data="notBreaching",
            alarm_actions=topics,
            ok_actions=topics,
            tags=environment.tags(),
            opts=child,
        )
        return queue

    def _role(
        self, environment: Environment, destination: aws.cloudwatch.EventApiDestination, child: pulumi.ResourceOptions
    ) -> aws.iam.Role:
        """Create the role with which EventBridge calls the destination."""
        trust = {
            "Effect": "Allow",
            "Principal": {"Service": _EVENTS},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": environment.account}, **_from_rules(environment)},
        }
        role = aws.iam.Role(
            "alarm-delivery",
            name=environment.role_name("alarm-delivery"),
            description=f"Delivers the alarms of {environment.prefix} to GitHub",
            assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
            permissions_boundary=environment.permissions_boundary,
            tags=environment.tags(),
            opts=child,
        )
        call: dict[str, Any] = {
            "Effect": "Allow",
            "Action": ["events:InvokeApiDestination"],
            "Resource": [destination.arn],
        }
        aws.iam.RolePolicy(
            "alarm-delivery",
            name="workload",
            role=role.name,
            policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": [call]}),
            opts=child,
        )
        return role


def _pattern(environment: Environment, model: str) -> Mapping[str, Any]:
    return {
        "source": [alarm_source(environment.prefix, model)],
        "detail-type": [ALARM_EVENT],
        "detail": {"model": [model], "environment": [environment.name]},
    }


def _from_rules(environment: Environment) -> dict[str, Any]:
    """Return the condition that a request comes from a rule for alarms of this environment."""
    return {"ArnLike": {"aws:SourceArn": environment.arn("events", f"rule/{environment.prefix}-*")}}
