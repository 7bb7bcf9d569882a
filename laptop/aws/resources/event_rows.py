"""EventBridge connections, API destinations and targets of rules."""

from __future__ import annotations

from typing import Any

from laptop.aws.cloud import tolerating
from laptop.aws.resources.row import AutoName, AwsCall, Row, Values
from laptop.aws.shapes import to_aws

_GONE = "ResourceNotFoundException"

# --- connections


def _parameters(call: AwsCall) -> Values:
    key = call.inputs["authParameters"]["apiKey"]
    return {
        "Name": call.inputs["name"],
        "AuthorizationType": call.inputs["authorizationType"],
        "AuthParameters": {"ApiKeyAuthParameters": {"ApiKeyName": key["key"], "ApiKeyValue": key["value"]}},
        "Description": call.inputs.get("description") or "",
    }


def _create_connection(call: AwsCall) -> str:
    events = call.client("events")
    if not (call.resuming and _read_connection(_named(call)) is not None):
        events.create_connection(**_parameters(call))
    return str(call.inputs["name"])


def _named(call: AwsCall) -> AwsCall:
    return AwsCall(**{**vars(call), "id": call.inputs["name"]})


def _update_connection(call: AwsCall) -> None:
    call.client("events").update_connection(**_parameters(call))


def _read_connection(call: AwsCall) -> Values | None:
    found: Values | None = None
    with tolerating(_GONE):
        found = call.client("events").describe_connection(Name=call.id)
    if found is None:
        return None
    known = (call.inputs.get("authParameters") or call.outputs.get("authParameters") or {}).get("apiKey") or {}
    name = (found.get("AuthParameters") or {}).get("ApiKeyAuthParameters", {}).get("ApiKeyName")
    # EventBridge never returns the value, so it is the one that is known.
    parameters = {"apiKey": {"key": name, "value": known.get("value", "")}}
    return {
        "name": call.id,
        "arn": found["ConnectionArn"],
        "secretArn": found["SecretArn"],
        "authorizationType": found["AuthorizationType"],
        "authParameters": parameters,
        "description": found.get("Description") or None,
    }


def _delete_connection(call: AwsCall) -> None:
    with tolerating(_GONE):
        call.client("events").delete_connection(Name=call.id)


# --- API destinations

_DESTINATION = {
    "connectionArn": "ConnectionArn",
    "description": "Description",
    "httpMethod": "HttpMethod",
    "invocationEndpoint": "InvocationEndpoint",
    "invocationRateLimitPerSecond": "InvocationRateLimitPerSecond",
    "name": "Name",
}


def _destination_parameters(call: AwsCall) -> Values:
    given = {aws: call.inputs[ours] for ours, aws in _DESTINATION.items() if call.inputs.get(ours) is not None}
    return {**given, "InvocationRateLimitPerSecond": int(given["InvocationRateLimitPerSecond"])}


def _create_destination(call: AwsCall) -> str:
    if not (call.resuming and _read_destination(_named(call)) is not None):
        call.client("events").create_api_destination(**_destination_parameters(call))
    return str(call.inputs["name"])


def _update_destination(call: AwsCall) -> None:
    call.client("events").update_api_destination(**_destination_parameters(call))


def _read_destination(call: AwsCall) -> Values | None:
    found: Values | None = None
    with tolerating(_GONE):
        found = call.client("events").describe_api_destination(Name=call.id)
    if found is None:
        return None
    return {
        **{ours: found[aws] for ours, aws in _DESTINATION.items() if found.get(aws)},
        "arn": found["ApiDestinationArn"],
    }


def _delete_destination(call: AwsCall) -> None:
    with tolerating(_GONE):
        call.client("events").delete_api_destination(Name=call.id)


# --- targets

_TARGET = {
    "arn": "Arn",
    "deadLetterConfig": "DeadLetterConfig",
    "httpTarget": "HttpParameters",
    "input": "Input",
    "inputPath": "InputPath",
    "inputTransformer": "InputTransformer",
    "retryPolicy": "RetryPolicy",
    "roleArn": "RoleArn",
    "targetId": "Id",
}
_PATHS = ("inputPaths", "InputPathsMap")


def _put_target(call: AwsCall) -> str:
    inputs = call.inputs
    given = {aws: inputs[ours] for ours, aws in _TARGET.items() if inputs.get(ours) is not None}
    if "InputTransformer" in given:
        given["InputTransformer"] = _renamed(given["InputTransformer"], *_PATHS)
    shape = call.cloud.shape("events", "PutTargets").members["Targets"].member
    target = to_aws(given, shape, "EventTarget")
    answer = call.client("events").put_targets(
        Rule=inputs["rule"], EventBusName=inputs["eventBusName"], Targets=[target]
    )
    assert not answer["FailedEntryCount"], answer["FailedEntries"]
    return f"{inputs['eventBusName']}/{inputs['rule']}/{inputs['targetId']}"


def _update_target(call: AwsCall) -> None:
    _put_target(call)


def _read_target(call: AwsCall) -> Values | None:
    bus, rule, target = call.id.split("/")
    listed: list[Values] = []
    with tolerating(_GONE):
        listed = call.client("events").list_targets_by_rule(Rule=rule, EventBusName=bus)["Targets"]
    found = next((one for one in listed if one["Id"] == target), None)
    if found is None:
        return None
    live: Values = {ours: _to_ours(found[aws]) for ours, aws in _TARGET.items() if aws in found}
    if "inputTransformer" in live:
        live["inputTransformer"] = _renamed(live["inputTransformer"], "inputPathsMap", _PATHS[0])
    return {**live, "rule": rule, "eventBusName": bus}


def _delete_target(call: AwsCall) -> None:
    bus, rule, target = call.id.split("/")
    with tolerating(_GONE):
        call.client("events").remove_targets(Rule=rule, EventBusName=bus, Ids=[target])


def _renamed(value: Values, old: str, new: str) -> Values:
    return {(new if key == old else key): item for key, item in value.items()}


def _to_ours(value: Any) -> Any:
    """Return a structure with its own keys in camelCase, but not those of a map, such as the names of headers."""
    if not isinstance(value, dict):
        return value
    return {key[:1].lower() + key[1:]: item for key, item in value.items()}


ROWS = (
    Row(
        "aws:cloudwatch/eventConnection:EventConnection",
        create=_create_connection,
        read=_read_connection,
        update=_update_connection,
        delete=_delete_connection,
        required=("authorizationType", "authParameters"),
        optional=("name", "description", "region"),
        auto_name=AutoName(longest=64),
        named_by=("name",),
        replaces=("name", "region"),
        computed=("arn", "secretArn", "region"),
        form={"description": None},
    ),
    Row(
        "aws:cloudwatch/eventApiDestination:EventApiDestination",
        create=_create_destination,
        read=_read_destination,
        update=_update_destination,
        delete=_delete_destination,
        required=("connectionArn", "httpMethod", "invocationEndpoint"),
        optional=("name", "description", "invocationRateLimitPerSecond", "region"),
        auto_name=AutoName(longest=64),
        defaults={"invocationRateLimitPerSecond": 300},
        named_by=("name",),
        replaces=("name", "region"),
        computed=("arn", "region"),
        form={"description": None},
    ),
    Row(
        "aws:cloudwatch/eventTarget:EventTarget",
        create=_put_target,
        read=_read_target,
        update=_update_target,
        delete=_delete_target,
        required=("arn", "rule"),
        optional=("eventBusName", "region", *(name for name in _TARGET if name != "arn")),
        auto_name=AutoName("targetId", longest=64),
        defaults={"eventBusName": "default"},
        named_by=("eventBusName", "rule", "targetId"),
        replaces=("eventBusName", "rule", "targetId", "region"),
        computed=("region",),
        form=dict.fromkeys(("input", "inputPath")),
    ),
)
