"""Log groups, alarms, topics, queues and event rules."""

from __future__ import annotations

import json
from typing import Any

from laptop.aws.cloud import tolerating
from laptop.aws.resources.iam import text
from laptop.aws.resources.row import AutoName, Call, Row, Values
from laptop.aws.shapes import tag_list, tag_map, to_aws, to_pulumi

# --- log groups


def _create_group(call: Call) -> str:
    logs, inputs = call.client("logs"), call.inputs
    parameters = {"kmsKeyId": inputs.get("kmsKeyId"), "tags": inputs.get("tags") or None}
    with tolerating(*(("ResourceAlreadyExistsException",) if call.resuming else ())):
        logs.create_log_group(logGroupName=inputs["name"], **{key: value for key, value in parameters.items() if value})
    _retain(call)
    return str(inputs["name"])


def _retain(call: Call) -> None:
    days, name = int(call.inputs.get("retentionInDays") or 0), call.inputs["name"]
    if days:
        call.client("logs").put_retention_policy(logGroupName=name, retentionInDays=days)
    elif call.old:
        call.client("logs").delete_retention_policy(logGroupName=name)


def _read_group(call: Call) -> Values | None:
    groups = call.client("logs").describe_log_groups(logGroupNamePrefix=call.tracked)["logGroups"]
    found = next((group for group in groups if group["logGroupName"] == call.tracked), None)
    if found is None:
        return None
    live = {
        "name": call.tracked,
        "arn": found["arn"].removesuffix(":*"),
        "retentionInDays": found.get("retentionInDays", 0),
    }
    return {**live, "kmsKeyId": found["kmsKeyId"]} if found.get("kmsKeyId") else live


def _update_group(call: Call) -> None:
    if call.changed("retentionInDays"):
        _retain(call)
    if call.changed("tags"):
        arn = f"arn:aws:logs:{call.region}:{call.cloud.account}:log-group:{call.tracked}"
        _retag_by_arn(call, "logs", "resourceArn", arn, as_list=False)


def _delete_group(call: Call) -> None:
    with tolerating("ResourceNotFoundException"):
        call.client("logs").delete_log_group(logGroupName=call.tracked)


def _retag_by_arn(call: Call, service: str, argument: str, arn: str, *, as_list: bool) -> None:
    client = call.client(service)
    old, new = call.old.get("tags") or {}, call.inputs.get("tags") or {}
    lower = argument[0].islower()
    if new:
        tags: Any = tag_list(new) if as_list else new
        client.tag_resource(**{argument: arn, "tags" if lower else "Tags": tags})
    if set(old) - set(new):
        client.untag_resource(**{argument: arn, "tagKeys" if lower else "TagKeys": sorted(set(old) - set(new))})


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


def _put_alarm(call: Call) -> str:
    inputs = call.inputs
    given = {_ALARM.get(name, name): value for name, value in inputs.items() if name not in ("tags", "region")}
    if isinstance(given.get("dimensions"), dict):
        given["dimensions"] = [{"name": key, "value": value} for key, value in given["dimensions"].items()]
    parameters = to_aws(given, call.cloud.shape("cloudwatch", "PutMetricAlarm"), "MetricAlarm")
    if inputs.get("tags") and not call.old:
        parameters["Tags"] = tag_list(inputs["tags"])
    call.client("cloudwatch").put_metric_alarm(**parameters)
    return str(inputs["name"])


def _update_alarm(call: Call) -> None:
    _put_alarm(call)
    if call.changed("tags"):
        arn = f"arn:aws:cloudwatch:{call.region}:{call.cloud.account}:alarm:{call.tracked}"
        _retag_by_arn(call, "cloudwatch", "ResourceARN", arn, as_list=True)


def _read_alarm(call: Call) -> Values | None:
    found = call.client("cloudwatch").describe_alarms(AlarmNames=[call.tracked])["MetricAlarms"]
    if not found:
        return None
    live = to_pulumi(
        found[0],
        {name: call.inputs.get(name) for name in _ALARM_SAME if name in call.inputs and name != "dimensions"},
    )
    return {**live, "name": call.tracked, "arn": found[0]["AlarmArn"]}


def _delete_alarm(call: Call) -> None:
    with tolerating("ResourceNotFound", "ResourceNotFoundException"):
        call.client("cloudwatch").delete_alarms(AlarmNames=[call.tracked])


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


def _create_topic(call: Call) -> str:
    answer = call.client("sns").create_topic(
        Name=call.inputs["name"],
        Attributes=_attributes(call.inputs, _TOPIC),
        Tags=tag_list(call.inputs.get("tags")),
    )
    return str(answer["TopicArn"])


def _read_topic(call: Call) -> Values | None:
    sns = call.client("sns")
    found: Values | None = None
    with tolerating("NotFound", "NotFoundException"):
        found = sns.get_topic_attributes(TopicArn=call.tracked)["Attributes"]
    if found is None:
        return None
    live = {ours: found[aws] for ours, aws in _TOPIC.items() if ours in call.inputs and aws in found}
    return {
        **live,
        "name": call.tracked.rpartition(":")[2],
        "arn": call.tracked,
        "owner": found["Owner"],
        "tags": tag_map(sns.list_tags_for_resource(ResourceArn=call.tracked)["Tags"]),
    }


def _update_topic(call: Call) -> None:
    sns = call.client("sns")
    for name, aws in _TOPIC.items():
        if call.changed(name):
            value = _attributes(call.inputs, {name: aws}).get(aws, "")
            sns.set_topic_attributes(TopicArn=call.tracked, AttributeName=aws, AttributeValue=value)
    if call.changed("tags"):
        _retag_by_arn(call, "sns", "ResourceArn", call.tracked, as_list=True)


def _delete_topic(call: Call) -> None:
    with tolerating("NotFound", "NotFoundException"):
        call.client("sns").delete_topic(TopicArn=call.tracked)


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


def _create_queue(call: Call) -> str:
    answer = call.client("sqs").create_queue(
        QueueName=call.inputs["name"],
        Attributes=_attributes(call.inputs, _QUEUE),
        tags=call.inputs.get("tags") or {},
    )
    return str(answer["QueueUrl"])


_NO_QUEUE = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")


def _read_queue(call: Call) -> Values | None:
    sqs = call.client("sqs")
    found: Values | None = None
    with tolerating(*_NO_QUEUE):
        found = sqs.get_queue_attributes(QueueUrl=call.tracked, AttributeNames=["All"])["Attributes"]
    if found is None:
        return None
    live: Values = {}
    for ours, aws in _QUEUE.items():
        if ours in call.inputs and aws in found:
            given = call.inputs[ours]
            live[ours] = given if _word(given) == found[aws] else found[aws]
    return {
        **live,
        "name": call.tracked.rpartition("/")[2],
        "arn": found["QueueArn"],
        "url": call.tracked,
        "tags": sqs.list_queue_tags(QueueUrl=call.tracked).get("Tags", {}),
    }


def _update_queue(call: Call) -> None:
    sqs = call.client("sqs")
    changed = {name: aws for name, aws in _QUEUE.items() if call.changed(name)}
    if changed:
        values = _attributes(call.inputs, changed)
        sqs.set_queue_attributes(
            QueueUrl=call.tracked, Attributes={aws: values.get(aws, "") for aws in changed.values()}
        )
    if call.changed("tags"):
        old, new = call.old.get("tags") or {}, call.inputs.get("tags") or {}
        if new:
            sqs.tag_queue(QueueUrl=call.tracked, Tags=new)
        if set(old) - set(new):
            sqs.untag_queue(QueueUrl=call.tracked, TagKeys=sorted(set(old) - set(new)))


def _delete_queue(call: Call) -> None:
    with tolerating(*_NO_QUEUE):
        call.client("sqs").delete_queue(QueueUrl=call.tracked)


# --- event rules

_RULE = {
    "description": "Description",
    "eventPattern": "EventPattern",
    "roleArn": "RoleArn",
    "scheduleExpression": "ScheduleExpression",
    "state": "State",
}


def _put_rule(call: Call) -> str:
    inputs = call.inputs
    parameters = {aws: inputs[ours] for ours, aws in _RULE.items() if inputs.get(ours)}
    if isinstance(parameters.get("EventPattern"), dict):
        parameters["EventPattern"] = json.dumps(parameters["EventPattern"])
    if inputs.get("tags") and not call.old:
        parameters["Tags"] = tag_list(inputs["tags"])
    call.client("events").put_rule(Name=inputs["name"], EventBusName=inputs["eventBusName"], **parameters)
    return f"{inputs['eventBusName']}/{inputs['name']}"


def _update_rule(call: Call) -> None:
    _put_rule(call)
    if call.changed("tags"):
        name = call.inputs["name"]
        arn = f"arn:aws:events:{call.region}:{call.cloud.account}:rule/{name}"
        _retag_by_arn(call, "events", "ResourceARN", arn, as_list=True)


def _read_rule(call: Call) -> Values | None:
    bus, _, name = call.tracked.rpartition("/")
    found: Values | None = None
    with tolerating("ResourceNotFoundException"):
        found = call.client("events").describe_rule(Name=name, EventBusName=bus)
    if found is None:
        return None
    live = {ours: found[aws] for ours, aws in _RULE.items() if ours in call.inputs and found.get(aws)}
    return {**live, "name": name, "eventBusName": bus, "arn": found["Arn"]}


def _delete_rule(call: Call) -> None:
    bus, _, name = call.tracked.rpartition("/")
    with tolerating("ResourceNotFoundException"):
        call.client("events").delete_rule(Name=name, EventBusName=bus)


ROWS = (
    Row(
        "aws:cloudwatch/logGroup:LogGroup",
        create=_create_group,
        read=_read_group,
        update=_update_group,
        delete=_delete_group,
        optional=("name", "retentionInDays", "kmsKeyId", "tags", "region"),
        auto_name=AutoName(longest=512),
        named_by=("name",),
        replaces=("name", "region", "kmsKeyId"),
    ),
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
    ),
)
