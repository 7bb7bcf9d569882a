"""Permissions that a request needs, by service.

Source: AWS service authorization reference (actions, resources, condition keys), and "Required permissions for Amazon
S3 API operations". A service that is not listed here needs its action on every resource, so only a policy with
`Resource: "*"` allows it: stricter than AWS, never laxer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from laptop.aws.access import s3_permissions
from laptop.aws.access.kms_permissions import kms_needs
from laptop.aws.access.policy import Need
from laptop.aws.access.principals import ACCOUNT, role_named, tags_of, trust_of
from laptop.aws.access.request import Request
from laptop.aws.access.tags import tag_context


def needs(request: Request) -> tuple[Need, ...]:
    """Return the permissions of a request; all of them must be granted."""
    if request.service == "s3":
        return tuple(s3_permissions.needs(request))
    action = request.action or "UnknownOperation"
    return tuple(_SERVICES.get(request.prefix, _plain)(request, action))


def _plain(request: Request, action: str) -> Iterator[Need]:
    yield Need(f"{request.prefix}:{action}", "*")


def _sts(request: Request, action: str) -> Iterator[Need]:
    if action == "GetCallerIdentity":  # AWS always allows it
        return
    if action != "AssumeRole":
        yield Need(f"sts:{action}", "*")
        return
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


def _glue(request: Request, action: str) -> Iterator[Need]:
    base = f"arn:aws:glue:{request.region}:{ACCOUNT}"
    parameters = request.json
    database = str(
        parameters.get("DatabaseName")
        or parameters.get("DatabaseInput", {}).get("Name", "")
        or (parameters.get("Name", "") if "Database" in action else "")
    )
    table = str(
        parameters.get("TableName")
        or parameters.get("TableInput", {}).get("Name", "")
        or (parameters.get("Name", "") if "Table" in action else "")
    )
    if parameters.get("ResourceArn"):  # tags
        yield Need(f"glue:{action}", str(parameters["ResourceArn"]))
        return
    if not any(noun in action for noun in ("Database", "Table", "Partition", "Catalog", "UserDefinedFunction")):
        yield Need(f"glue:{action}", "*")
        return
    # Glue needs permission on the table, its database and the catalog.
    yield Need(f"glue:{action}", f"{base}:catalog")
    if database:
        yield Need(f"glue:{action}", f"{base}:database/{database}")
    if database and (table or "Table" in action):
        yield Need(f"glue:{action}", f"{base}:table/{database}/{table or '*'}")


def _ecr(request: Request, action: str) -> Iterator[Need]:
    from moto.ecr.models import ecr_backends

    from laptop.aws.access.policy import parse

    base = f"arn:aws:ecr:{request.region}:{ACCOUNT}:repository/"
    listed = request.json.get("repositoryNames") or []
    one = request.parameter("repositoryName") or request.parameter("resourceArn").removeprefix(base)
    names = [one] if one else [str(name) for name in listed]
    if not names:
        yield Need(f"ecr:{action}", "*")
    for name in names:
        repository = ecr_backends[ACCOUNT][request.region].repositories.get(name)
        policy = repository.policy if repository is not None else None
        yield Need(f"ecr:{action}", base + name, policy=parse(policy, f"the repository {name}") if policy else None)
    if action == "CreateRepository" and request.json.get("tags"):
        yield Need("ecr:TagResource", base + one)


def _iam(request: Request, action: str) -> Iterator[Need]:
    base = f"arn:aws:iam::{ACCOUNT}"
    resource = "*"
    path, name = request.parameter("Path") or "/", request.parameter("RoleName")
    role = role_named(name) if name else None
    if name:
        resource = role.arn if role is not None else f"{base}:role{path}{name}"
    elif request.parameter("UserName"):
        resource = f"{base}:user{path}{request.parameter('UserName')}"
    elif request.parameter("PolicyArn"):
        resource = request.parameter("PolicyArn")
    elif request.parameter("PolicyName"):
        resource = f"{base}:policy{path}{request.parameter('PolicyName')}"
    # The boundary in the request counts, else the role's own.
    boundary = request.parameter("PermissionsBoundary") or (role.permissions_boundary_arn if role is not None else "")
    tags = request_tags(request)
    keys = [value for key, value in request.form.items() if key.startswith("TagKeys.member.")]
    context = {
        "iam:permissionsboundary": _some(boundary or ""),
        "iam:policyarn": _some(request.parameter("PolicyArn")),
        **tag_context(tags, tags_of(role) if role is not None else {}, keys),
    }
    yield Need(f"iam:{action}", resource, context)
    if action in ("CreateRole", "CreatePolicy") and tags:
        yield Need(f"iam:Tag{action.removeprefix('Create')}", resource, context)


def _by_parameter(parameter: str) -> Callable[[Request, str], Iterator[Need]]:
    """Build the permissions of a service whose requests contain the ARN of their resource."""

    def needs_by_arn(request: Request, action: str) -> Iterator[Need]:
        yield Need(f"{request.prefix}:{action}", request.parameter(parameter) or "*")

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


def _cloudwatch(request: Request, action: str) -> Iterator[Need]:
    """Alarms are resources. Metrics are not: the namespace of those that are sent is a condition key."""
    if action == "PutMetricData":
        yield Need(f"cloudwatch:{action}", "*", {"cloudwatch:namespace": _some(request.parameter("Namespace"))})
        return
    listed = request.json.get("AlarmNames") or ()
    names = [request.parameter("AlarmName"), *(listed if isinstance(listed, list) else ())]
    names += [value for key, value in request.form.items() if key.startswith("AlarmNames.member.")]
    base = f"arn:aws:cloudwatch:{request.region}:{ACCOUNT}:alarm:"
    for resource in [f"{base}{name}" for name in names if name] or [request.parameter("ResourceARN") or "*"]:
        yield Need(f"cloudwatch:{action}", resource)


def _sqs(request: Request, action: str) -> Iterator[Need]:
    queue = (request.parameter("QueueUrl") or request.parameter("QueueName")).rpartition("/")[2]
    resource = f"arn:aws:sqs:{request.region}:{ACCOUNT}:{queue}" if queue else "*"
    yield Need(f"sqs:{action}", resource)


_SERVICES: dict[str, Callable[[Request, str], Iterator[Need]]] = {
    "cloudwatch": _cloudwatch,
    "ecr": _ecr,
    "eks": _eks,
    "glue": _glue,
    "iam": _iam,
    "kms": kms_needs,
    "sns": _by_parameter("TopicArn"),
    "sqs": _sqs,
    "sts": _sts,
}
