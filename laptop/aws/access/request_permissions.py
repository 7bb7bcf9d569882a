"""Permissions that a request needs, by service.

Source: AWS service authorization reference (actions, resources, condition keys), and "Required permissions for Amazon
S3 API operations". A service that is not listed here needs its action on every resource, so only a policy with
`Resource: "*"` allows it: stricter than AWS, never laxer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from laptop.aws.access import s3_permissions
from laptop.aws.access.kms_permissions import kms_needs
from laptop.aws.access.policy import Need
from laptop.aws.access.principals import ACCOUNT, role_named, tags_of, trust_of
from laptop.aws.access.request import Request, RequestRefusedError
from laptop.aws.access.tags import tag_context


def needs(request: Request) -> tuple[Need, ...]:
    """Return the permissions of a request; all of them must be granted.

    Raises:
        RequestRefusedError: the account does not execute the request.
    """
    if request.service == "s3":
        return tuple(s3_permissions.needs(request))
    request.check()
    action = request.action
    if action is None:
        raise RequestRefusedError(400, "InvalidAction", "The request does not name exactly one operation.")
    return tuple(_SERVICES.get(request.prefix, _plain)(request, action))


def _plain(request: Request, action: str) -> Iterator[Need]:
    yield Need(f"{request.prefix}:{action}", "*")


def _sts(request: Request, action: str) -> Iterator[Need]:
    if action == "GetCallerIdentity":  # AWS always allows it
        return
    if action != "AssumeRole":
        yield Need(f"sts:{action}", "*")
        return
    if any(name.startswith("PolicyArns.") for name in request.form):
        raise RequestRefusedError(501, "NotImplemented", "The laptop's STS takes a session policy as text only.")
    role = request.parameter("RoleArn")
    tags = request_tags(request)
    context = {
        **{f"aws:requesttag/{key}".lower(): (value,) for key, value in tags.items()},
        "aws:tagkeys": tuple(tags),
        "sts:rolesessionname": _some(request.parameter("RoleSessionName")),
        "sts:externalid": _some(request.parameter("ExternalId")),
    }
    if "eks-cluster-arn" in tags:  # tags of EKS Pod Identity
        context |= {"aws:sourcearn": (tags["eks-cluster-arn"],), "aws:sourceaccount": (ACCOUNT,)}
    trust = trust_of(role) or {"Statement": []}
    actions = ("AssumeRole", "TagSession") if tags else ("AssumeRole",)
    for name in actions:
        yield Need(f"sts:{name}", role, context, trust, policy_rules=True)


def request_tags(request: Request) -> dict[str, str]:
    """Return the tags in an STS or IAM request."""
    tags = {}
    for name, value in request.form.items():
        if name.startswith("Tags.member.") and name.endswith(".Key"):
            tags[value] = request.form.get(name.removesuffix("Key") + "Value", "")
    return tags


def _some(value: str) -> tuple[str, ...]:
    return (value,) if value else ()


_GLUE_TAGS = ("GetTags", "TagResource", "UntagResource")


def _glue(request: Request, action: str) -> Iterator[Need]:
    """Yield the needs on every database and table that a request names, because moto takes the one of the operation."""
    base = f"arn:aws:glue:{request.region}:{ACCOUNT}"
    parameters = request.json
    if action in _GLUE_TAGS:
        yield Need(f"glue:{action}", str(parameters.get("ResourceArn") or "*"))
        return
    if not any(noun in action for noun in ("Database", "Table", "Partition", "Catalog", "UserDefinedFunction")):
        yield Need(f"glue:{action}", "*")
        return
    databases = _names(parameters, "DatabaseName", "DatabaseInput", *(("Name",) if "Database" in action else ()))
    tables = _names(parameters, "TableName", "TableInput", "TablesToDelete", *(("Name",) if "Table" in action else ()))
    # Glue needs permission on the table, its database and the catalog.
    yield Need(f"glue:{action}", f"{base}:catalog")
    for database in databases:
        yield Need(f"glue:{action}", f"{base}:database/{database}")
        for table in tables or (("*",) if "Table" in action else ()):
            yield Need(f"glue:{action}", f"{base}:table/{database}/{table}")


def _names(parameters: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    """Return the names that parameters give: as a text, as a list of texts, or as the `Name` of a structure."""
    found: list[str] = []
    for key in keys:
        value = parameters.get(key)
        if isinstance(value, dict):
            value = value.get("Name")
        found += map(str, value if isinstance(value, list) else [value] if value else [])
    return tuple(dict.fromkeys(found))


def _ecr(request: Request, action: str) -> Iterator[Need]:
    from moto.ecr.models import ecr_backends

    from laptop.aws.access.policy import parse

    base = f"arn:aws:ecr:{request.region}:{ACCOUNT}:repository/"
    tagged = request.parameter("resourceArn").removeprefix(base)
    names = dict.fromkeys([*_names(request.json, "repositoryName", "repositoryNames"), *([tagged] if tagged else [])])
    if not names:
        yield Need(f"ecr:{action}", "*")
    for name in names:
        repository = ecr_backends[ACCOUNT][request.region].repositories.get(name)
        policy = repository.policy if repository is not None else None
        yield Need(f"ecr:{action}", base + name, policy=parse(policy, f"the repository {name}") if policy else None)
        if action == "CreateRepository" and request.json.get("tags"):
            yield Need("ecr:TagResource", base + name)


_BOUNDARY_GIVEN = ("CreateRole", "CreateUser", "PutRolePermissionsBoundary", "PutUserPermissionsBoundary")
_BOUNDARY_HELD = {
    *(f"{verb}{kind}Policy" for verb in ("Attach", "Delete", "Detach", "Put") for kind in ("Role", "User")),
    *(f"Delete{kind}PermissionsBoundary" for kind in ("Role", "User")),
}
"""Actions with the condition key `iam:PermissionsBoundary`: of the request, or of the role or user."""

_ABOUT_USERS = ("AccessKey", "LoginProfile", "MFADevice", "SSHPublicKey", "ServiceSpecificCredential", "SigningCert")


def _iam_resource(request: Request, action: str) -> str:
    """Return the resource of an action. The action decides its kind; other parameters are ignored, as IAM does."""
    base, path = f"arn:aws:iam::{ACCOUNT}", request.parameter("Path") or "/"
    if "InstanceProfile" in action and action != "ListInstanceProfilesForRole":
        kind, name = "instance-profile", request.parameter("InstanceProfileName")
    elif "Group" in action and action != "ListGroupsForUser":
        kind, name = "group", request.parameter("GroupName")
    elif "Role" in action:
        role = role_named(request.parameter("RoleName"))
        if role is not None:
            return str(role.arn)
        kind, name = "role", request.parameter("RoleName")
    elif "User" in action or any(part in action for part in _ABOUT_USERS):
        kind, name = "user", request.parameter("UserName")
    elif "OpenIDConnectProvider" in action:
        return request.parameter("OpenIDConnectProviderArn") or "*"
    elif "Policy" in action or "Policies" in action:
        if request.parameter("PolicyArn"):
            return request.parameter("PolicyArn")
        kind, name = "policy", request.parameter("PolicyName")
    else:
        return "*"
    return f"{base}:{kind}{path}{name}" if name else "*"


def _iam(request: Request, action: str) -> Iterator[Need]:
    resource = _iam_resource(request, action)
    role = role_named(request.parameter("RoleName")) if ":role/" in resource else None
    boundary = ""
    if action in _BOUNDARY_GIVEN:
        boundary = request.parameter("PermissionsBoundary")
    elif action in _BOUNDARY_HELD and role is not None:
        boundary = role.permissions_boundary_arn or ""
    tags = request_tags(request)
    keys = [value for key, value in request.form.items() if key.startswith("TagKeys.member.")]
    attaches = action.startswith(("Attach", "Detach"))
    context = {
        "iam:permissionsboundary": _some(boundary),
        "iam:policyarn": _some(request.parameter("PolicyArn")) if attaches else (),
        **tag_context(tags, tags_of(role) if role is not None else {}, keys),
    }
    yield Need(f"iam:{action}", resource, context)
    if action.startswith("Create") and tags:
        yield Need(f"iam:Tag{action.removeprefix('Create')}", resource, context)


def _by_parameters(*parameters: str) -> Callable[[Request, str], Iterator[Need]]:
    """Build the permissions of a service whose requests contain the ARNs of their resources."""

    def needs_by_arn(request: Request, action: str) -> Iterator[Need]:
        arns = dict.fromkeys(filter(None, map(request.parameter, parameters)))
        for arn in arns or ("*",):
            yield Need(f"{request.prefix}:{action}", arn)

    return needs_by_arn


def _eks(request: Request, action: str) -> Iterator[Need]:
    base = f"arn:aws:eks:{request.region}:{ACCOUNT}"
    kind, _, rest = request.path.strip("/").partition("/")
    if kind == "tags":
        yield Need(f"eks:{action}", rest or "*")
        return
    cluster, _, part = rest.partition("/")
    resource = f"{base}:cluster/{cluster}" if kind == "clusters" and cluster else "*"
    association = part.removeprefix("pod-identity-associations/")
    if association != part:
        resource = f"{base}:podidentityassociation/{cluster}/{association}"
    yield Need(f"eks:{action}", resource)
    role, service = str(request.json.get("roleArn") or ""), _PASSES_ROLE.get(action)
    if role and service:
        yield Need("iam:PassRole", role, {"iam:passedtoservice": (service,)})
        if service == _PODS:
            yield Need("iam:GetRole", role)
    if request.json.get("tags") and action.startswith("Create"):
        yield Need("eks:TagResource", _created(base, action, request, cluster))


_PODS = "pods.eks.amazonaws.com"
_PASSES_ROLE = {
    "CreateCluster": "eks.amazonaws.com",
    "CreateFargateProfile": "eks-fargate-pods.amazonaws.com",
    "CreateNodegroup": "ec2.amazonaws.com",
    "CreatePodIdentityAssociation": _PODS,
    "UpdatePodIdentityAssociation": _PODS,
}
"""Operation -> the service to which it passes the role of its request."""


def _created(base: str, action: str, request: Request, cluster: str) -> str:
    if action == "CreateCluster":
        return f"{base}:cluster/{request.json.get('name')}"
    if action == "CreatePodIdentityAssociation":
        return f"{base}:podidentityassociation/{cluster}/*"
    return "*"


def _cloudwatch(request: Request, action: str) -> Iterator[Need]:
    """Alarms and dashboards are resources; dashboards belong to no region.

    Metrics are not: the namespace of those that are sent is a condition key.
    """
    if action == "PutMetricData":
        yield Need(f"cloudwatch:{action}", "*", {"cloudwatch:namespace": _some(request.parameter("Namespace"))})
        return
    listed = request.json.get("AlarmNames") or ()
    names = [request.parameter("AlarmName"), *(listed if isinstance(listed, list) else ())]
    names += [value for key, value in request.form.items() if key.startswith("AlarmNames.member.")]
    boards = request.json.get("DashboardNames") or ()
    shown = [request.parameter("DashboardName"), *(boards if isinstance(boards, list) else ())]
    shown += [value for key, value in request.form.items() if key.startswith("DashboardNames.member.")]
    if any(shown):
        for name in filter(None, shown):
            yield Need(f"cloudwatch:{action}", f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/{name}")
        return
    base = f"arn:aws:cloudwatch:{request.region}:{ACCOUNT}:alarm:"
    # Other parameters are ignored, as CloudWatch does: they must not stand for what the operation is about.
    resources = [f"{base}{name}" for name in names if name and "Alarm" in action]
    for resource in [*resources, *_some(request.parameter("ResourceARN"))] or ["*"]:
        yield Need(f"cloudwatch:{action}", resource)


_EVENT_RESOURCES = (
    (
        "api-destination",
        ("CreateApiDestination", "DeleteApiDestination", "DescribeApiDestination", "UpdateApiDestination"),
    ),
    ("connection", ("CreateConnection", "DeleteConnection", "DescribeConnection", "UpdateConnection")),
    ("rule", ("DeleteRule", "DescribeRule", "DisableRule", "EnableRule", "PutRule")),
)
"""Kind of a resource of EventBridge → actions that take its name as `Name`."""


def _events(request: Request, action: str) -> Iterator[Need]:
    """Yield the needs on rules, connections, API destinations and buses, by name as EventBridge does."""
    base, parameters = f"arn:aws:events:{request.region}:{ACCOUNT}", request.json
    bus = request.parameter("EventBusName").rpartition("/")[2] or "default"
    within = "" if bus == "default" else f"{bus}/"
    if action == "PutEvents":
        yield from _put_events(base, parameters)
        return
    kind = next((kind for kind, actions in _EVENT_RESOURCES if action in actions), "")
    name = request.parameter("Name") if kind else request.parameter("Rule")
    if name:
        place = within if kind in ("", "rule") else ""
        yield Need(f"events:{action}", f"{base}:{kind or 'rule'}/{place}{name}")
    else:
        yield Need(f"events:{action}", request.parameter("ResourceARN") or "*")
    if action == "CreateApiDestination":
        yield Need(f"events:{action}", _without_id(request.parameter("ConnectionArn")))
    if action == "PutRule" and parameters.get("Tags"):
        yield Need("events:TagResource", f"{base}:rule/{within}{name}")
    if action in ("CreateConnection", "DeleteConnection", "UpdateConnection"):
        verb = {"Create": "CreateSecret", "Delete": "DeleteSecret", "Update": "UpdateSecret"}[action[:6]]
        secret = f"arn:aws:secretsmanager:{request.region}:{ACCOUNT}:secret:events!connection/{name}/*"
        yield Need(f"secretsmanager:{verb}", secret)
    if action == "PutTargets":
        listed = parameters.get("Targets")
        targets = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        roles = [target.get("RoleArn") for target in targets]
        for role in dict.fromkeys(filter(None, roles)):
            yield Need("iam:PassRole", str(role), {"iam:passedtoservice": ("events.amazonaws.com",)})


def _put_events(base: str, parameters: Mapping[str, Any]) -> Iterator[Need]:
    """Yield one need for each event: each must be allowed by its source and its type."""
    listed = parameters.get("Entries")
    entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    for entry in entries:
        bus = str(entry.get("EventBusName") or "default").rpartition("/")[2]
        context = {
            "events:source": _some(str(entry.get("Source") or "")),
            "events:detail-type": _some(str(entry.get("DetailType") or "")),
        }
        yield Need("events:PutEvents", f"{base}:event-bus/{bus}", context)
    if not entries:
        yield Need("events:PutEvents", "*")


def _without_id(arn: str) -> str:
    """Return the ARN of a connection as policies name it: without the id that EventBridge adds."""
    return arn.rpartition("/")[0] if arn.count("/") > 1 else arn


def _sqs(request: Request, action: str) -> Iterator[Need]:
    named = dict.fromkeys(request.parameter(name).rpartition("/")[2] for name in ("QueueUrl", "QueueName"))
    queues = [name for name in named if name]
    for queue in queues:
        yield Need(f"sqs:{action}", f"arn:aws:sqs:{request.region}:{ACCOUNT}:{queue}")
    if not queues:
        yield Need(f"sqs:{action}", "*")


_SERVICES: dict[str, Callable[[Request, str], Iterator[Need]]] = {
    "cloudwatch": _cloudwatch,
    "ecr": _ecr,
    "eks": _eks,
    "events": _events,
    "glue": _glue,
    "iam": _iam,
    "kms": kms_needs,
    "sns": _by_parameters("TopicArn", "TargetArn", "ResourceArn"),
    "sqs": _sqs,
    "sts": _sts,
}
