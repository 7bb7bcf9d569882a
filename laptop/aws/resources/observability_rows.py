"""CloudWatch alarms and dashboards, SNS topics, SQS queues and EventBridge rules."""

from __future__ import annotations

import json
from typing import Any

from laptop.aws.cloud import tolerating
from laptop.aws.resources.iam_rows import text
from laptop.aws.resources.row import AutoName, AwsCall, Row, Values, retag
from laptop.aws.shapes import tag_list, tag_map, to_aws, to_pulumi


def _retag_by_arn(call: AwsCall, service: str, arn: str) -> None:
    client, argument = call.client(service), "ResourceArn" if service == "sns" else "ResourceARN"
    retag(
        call,
        lambda tags: client.tag_resource(**{argument: arn, "Tags": tag_list(tags)}),
        lambda keys: client.untag_resource(**{argument: arn, "TagKeys": keys}),
    )


_GIVEN = object()

# --- alarms

_ALARM = {
    "name": "AlarmName",
    "metricQueries": "Metrics",
    "okActions": "OKActions",
    "evaluateLowSampleCountPercentiles": "EvaluateLowSampleCountPercentile",
}
_ALARM_SAME = (
    "actionsEnabled",
    "alarmActions",
    "alarmDescription",
    "comparisonOperator",
    "datapointsToAlarm",
    "dimensions",
    "evaluationPeriods",
    "extendedStatistic",
    "insufficientDataActions",
    "metricName",
    "namespace",
    "period",
    "statistic",
    "threshold",
    "treatMissingData",
    "unit",
)


def _put_alarm(call: AwsCall) -> str:
    inputs = call.inputs
    given = {_ALARM.get(name, name): value for name, value in inputs.items() if name not in ("tags", "region")}
    if isinstance(given.get("dimensions"), dict):
        given["dimensions"] = [{"name": key, "value": value} for key, value in given["dimensions"].items()]
    parameters = to_aws(given, call.cloud.shape("cloudwatch", "PutMetricAlarm"), "MetricAlarm")
    if inputs.get("tags") and not call.old_inputs:
        parameters["Tags"] = tag_list(inputs["tags"])
    call.client("cloudwatch").put_metric_alarm(**parameters)
    return str(inputs["name"])


def _update_alarm(call: AwsCall) -> None:
    _put_alarm(call)
    _retag_by_arn(call, "cloudwatch", f"arn:aws:cloudwatch:{call.region}:{call.cloud.account}:alarm:{call.id}")


def _read_alarm(call: AwsCall) -> Values | None:
    found = call.client("cloudwatch").describe_alarms(AlarmNames=[call.id])["MetricAlarms"]
    if not found:
        return None
    live = to_pulumi(
        found[0],
        {name: call.inputs.get(name) for name in _ALARM_SAME if name in call.inputs and name != "dimensions"},
    )
    if call.inputs.get("dimensions", _GIVEN) is None:  # an import
        arn = found[0]["AlarmArn"]
        live |= {
            "dimensions": tag_map(found[0].get("Dimensions"), "Name"),
            "okActions": found[0].get("OKActions"),
            "tags": tag_map(call.client("cloudwatch").list_tags_for_resource(ResourceARN=arn)["Tags"]),
        }
    return {**live, "name": call.id, "arn": found[0]["AlarmArn"]}


def _delete_alarm(call: AwsCall) -> None:
    with tolerating("ResourceNotFound", "ResourceNotFoundException"):
        call.client("cloudwatch").delete_alarms(AlarmNames=[call.id])


# --- topics

_TOPIC = {"displayName": "DisplayName", "kmsMasterKeyId": "KmsMasterKeyId", "policy": "Policy"}


def _attributes(inputs: Values, names: dict[str, str]) -> dict[str, str]:
    return {
        aws: text(inputs[ours]) if ours in ("policy", "redrivePolicy") else _word(inputs[ours])
        for ours, aws in names.items()
        if inputs.get(ours) is not None
    }


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, int | float) else str(value)


def _unword(text_: str, like: Any) -> Any:
    """Return an attribute as a value of the same type as `like`."""
    if isinstance(like, bool):
        return text_ == "true"
    return int(text_) if isinstance(like, int | float) and text_.isdigit() else text_


def _create_topic(call: AwsCall) -> str:
    answer = call.client("sns").create_topic(
        Name=call.inputs["name"],
        Attributes=_attributes(call.inputs, _TOPIC),
        Tags=tag_list(call.inputs.get("tags")),
    )
    return str(answer["TopicArn"])


def _read_topic(call: AwsCall) -> Values | None:
    sns = call.client("sns")
    found: Values | None = None
    with tolerating("NotFound", "NotFoundException"):
        found = sns.get_topic_attributes(TopicArn=call.id)["Attributes"]
    if found is None:
        return None
    live = {ours: found[aws] for ours, aws in _TOPIC.items() if ours in call.inputs and aws in found}
    return {
        **live,
        "name": call.id.rpartition(":")[2],
        "arn": call.id,
        "owner": found["Owner"],
        "tags": tag_map(sns.list_tags_for_resource(ResourceArn=call.id)["Tags"]),
    }


def _update_topic(call: AwsCall) -> None:
    sns = call.client("sns")
    for name, aws in _TOPIC.items():
        if call.changed(name):
            value = _attributes(call.inputs, {name: aws}).get(aws, "")
            sns.set_topic_attributes(TopicArn=call.id, AttributeName=aws, AttributeValue=value)
    _retag_by_arn(call, "sns", call.id)


def _delete_topic(call: AwsCall) -> None:
    with tolerating("NotFound", "NotFoundException"):
        call.client("sns").delete_topic(TopicArn=call.id)


# --- queues

_QUEUE = {
    "delaySeconds": "DelaySeconds",
    "kmsMasterKeyId": "KmsMasterKeyId",
    "maxMessageSize": "MaximumMessageSize",
    "messageRetentionSeconds": "MessageRetentionPeriod",
    "policy": "Policy",
    "receiveWaitTimeSeconds": "ReceiveMessageWaitTimeSeconds",
    "redrivePolicy": "RedrivePolicy",
    "sqsManagedSseEnabled": "SqsManagedSseEnabled",
    "visibilityTimeoutSeconds": "VisibilityTimeout",
}


def _create_queue(call: AwsCall) -> str:
    answer = call.client("sqs").create_queue(
        QueueName=call.inputs["name"],
        Attributes=_attributes(call.inputs, _QUEUE),
        tags=call.inputs.get("tags") or {},
    )
    return str(answer["QueueUrl"])


_NO_QUEUE = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")


def _read_queue(call: AwsCall) -> Values | None:
    sqs = call.client("sqs")
    found: Values | None = None
    with tolerating(*_NO_QUEUE):
        found = sqs.get_queue_attributes(QueueUrl=call.id, AttributeNames=["All"])["Attributes"]
    if found is None:
        return None
    live: Values = {}
    for ours, aws in _QUEUE.items():
        if ours in call.inputs and aws in found:
            given = call.inputs[ours]
            live[ours] = given if _word(given) == found[aws] else _unword(found[aws], given)
    return {
        **live,
        "name": call.id.rpartition("/")[2],
        "arn": found["QueueArn"],
        "url": call.id,
        "tags": sqs.list_queue_tags(QueueUrl=call.id).get("Tags", {}),
    }


def _update_queue(call: AwsCall) -> None:
    sqs = call.client("sqs")
    changed = {name: aws for name, aws in _QUEUE.items() if call.changed(name)}
    if changed:
        values = _attributes(call.inputs, changed)
        sqs.set_queue_attributes(QueueUrl=call.id, Attributes={aws: values.get(aws, "") for aws in changed.values()})
    retag(
        call,
        lambda tags: sqs.tag_queue(QueueUrl=call.id, Tags=tags),
        lambda keys: sqs.untag_queue(QueueUrl=call.id, TagKeys=keys),
    )


def _delete_queue(call: AwsCall) -> None:
    with tolerating(*_NO_QUEUE):
        call.client("sqs").delete_queue(QueueUrl=call.id)


# --- dashboards


def _put_dashboard(call: AwsCall) -> str:
    inputs = call.inputs
    name = str(inputs["dashboardName"])
    call.client("cloudwatch").put_dashboard(DashboardName=name, DashboardBody=_dashboard_body(inputs["dashboardBody"]))
    return name


def _dashboard_body(body: Any) -> str:
    return body if isinstance(body, str) else json.dumps(body)


def _update_dashboard(call: AwsCall) -> None:
    _put_dashboard(call)


def _read_dashboard(call: AwsCall) -> Values | None:
    found: Values | None = None
    with tolerating("ResourceNotFound", "DashboardNotFoundError"):
        found = call.client("cloudwatch").get_dashboard(DashboardName=call.id)
    if found is None:
        return None
    arn = f"arn:aws:cloudwatch::{call.cloud.account}:dashboard/{call.id}"
    return {"dashboardName": call.id, "dashboardBody": found["DashboardBody"], "dashboardArn": arn}


def _delete_dashboard(call: AwsCall) -> None:
    with tolerating("ResourceNotFound", "DashboardNotFoundError"):
        call.client("cloudwatch").delete_dashboards(DashboardNames=[call.id])


# --- event rules

_RULE = {
    "description": "Description",
    "eventPattern": "EventPattern",
    "roleArn": "RoleArn",
    "scheduleExpression": "ScheduleExpression",
    "state": "State",
}


def _put_rule(call: AwsCall) -> str:
    inputs = call.inputs
    parameters = {aws: inputs[ours] for ours, aws in _RULE.items() if inputs.get(ours)}
    if isinstance(parameters.get("EventPattern"), dict):
        parameters["EventPattern"] = json.dumps(parameters["EventPattern"])
    if inputs.get("tags") and not call.old_inputs:
        parameters["Tags"] = tag_list(inputs["tags"])
    call.client("events").put_rule(Name=inputs["name"], EventBusName=inputs["eventBusName"], **parameters)
    return f"{inputs['eventBusName']}/{inputs['name']}"


def _update_rule(call: AwsCall) -> None:
    _put_rule(call)
    _retag_by_arn(call, "events", f"arn:aws:events:{call.region}:{call.cloud.account}:rule/{call.inputs['name']}")


def _read_rule(call: AwsCall) -> Values | None:
    bus, _, name = call.id.rpartition("/")
    found: Values | None = None
    with tolerating("ResourceNotFoundException"):
        found = call.client("events").describe_rule(Name=name, EventBusName=bus)
    if found is None:
        return None
    live = {ours: found[aws] for ours, aws in _RULE.items() if ours in call.inputs and found.get(aws)}
    if call.inputs.get("tags", _GIVEN) is None:
        live["tags"] = tag_map(call.client("events").list_tags_for_resource(ResourceARN=found["Arn"])["Tags"])
    return {**live, "name": name, "eventBusName": bus, "arn": found["Arn"]}


def _delete_rule(call: AwsCall) -> None:
    bus, _, name = call.id.rpartition("/")
    with tolerating("ResourceNotFoundException"):
        call.client("events").delete_rule(Name=name, EventBusName=bus)


ROWS = (
    Row(
        "aws:cloudwatch/metricAlarm:MetricAlarm",
        create=_put_alarm,
        read=_read_alarm,
        update=_update_alarm,
        delete=_delete_alarm,
        required=("comparisonOperator", "evaluationPeriods"),
        optional=(
            *_ALARM,
            *(name for name in _ALARM_SAME if name not in ("comparisonOperator", "evaluationPeriods")),
            "tags",
            "region",
        ),
        auto_name=AutoName(longest=255),
        defaults={"actionsEnabled": True, "treatMissingData": "missing"},
        named_by=("name",),
        replaces=("name", "region"),
        sets=("alarmActions", "okActions", "insufficientDataActions"),
        computed=("arn", "region", "tagsAll"),
        form={**dict.fromkeys(_ALARM_SAME), "okActions": None, "tags": None},
    ),
    Row(
        "aws:cloudwatch/dashboard:Dashboard",
        create=_put_dashboard,
        read=_read_dashboard,
        update=_update_dashboard,
        delete=_delete_dashboard,
        required=("dashboardName", "dashboardBody"),
        named_by=("dashboardName",),
        replaces=("dashboardName",),
        documents=("dashboardBody",),
        computed=("dashboardArn",),
    ),
    Row(
        "aws:sns/topic:Topic",
        create=_create_topic,
        read=_read_topic,
        update=_update_topic,
        delete=_delete_topic,
        optional=("name", *_TOPIC, "tags", "region"),
        auto_name=AutoName(longest=256),
        named_by=("name",),
        replaces=("name", "region"),
        documents=("policy",),
        policies=("policy",),
        computed=("arn", "owner", "region", "tagsAll"),
        form={"displayName": "", "kmsMasterKeyId": ""},
    ),
    Row(
        "aws:sqs/queue:Queue",
        create=_create_queue,
        read=_read_queue,
        update=_update_queue,
        delete=_delete_queue,
        optional=("name", *_QUEUE, "tags", "region"),
        auto_name=AutoName(longest=80),
        named_by=("name",),
        replaces=("name", "region"),
        documents=("policy", "redrivePolicy"),
        policies=("policy",),
        computed=("arn", "region", "tagsAll", "url"),
        form={
            "delaySeconds": 0,
            "kmsMasterKeyId": "",
            "maxMessageSize": 1048576,
            "messageRetentionSeconds": 345600,
            "policy": "",
            "receiveWaitTimeSeconds": 0,
            "redrivePolicy": "",
            "sqsManagedSseEnabled": False,
            "visibilityTimeoutSeconds": 30,
        },
    ),
    Row(
        "aws:cloudwatch/eventRule:EventRule",
        create=_put_rule,
        read=_read_rule,
        update=_update_rule,
        delete=_delete_rule,
        optional=("name", "eventBusName", *_RULE, "tags", "region"),
        auto_name=AutoName(longest=64),
        defaults={"eventBusName": "default"},
        named_by=("name", "eventBusName"),
        replaces=("name", "eventBusName", "region"),
        documents=("eventPattern",),
        computed=("arn", "region", "tagsAll"),
        form={**dict.fromkeys(_RULE), "state": "ENABLED", "tags": None},
    ),
)
