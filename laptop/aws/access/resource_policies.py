"""Resource policies that a request sets: AWS refuses one that it cannot evaluate, and moto stores it.

Nobody could change a stored one again, because every request for its resource would evaluate it.
"""

from __future__ import annotations

from laptop.aws.access.policy import parse
from laptop.aws.access.request import Request, RequestRefusedError
from laptop.aws.access.s3_operations import operation_of
from pipelines.declarations.errors import MlopsError

_BY_PARAMETER = {
    ("kms", "CreateKey"): ("Policy", "MalformedPolicyDocumentException"),
    ("kms", "PutKeyPolicy"): ("Policy", "MalformedPolicyDocumentException"),
    ("ecr", "SetRepositoryPolicy"): ("policyText", "InvalidParameterException"),
}
"""Service and operation → parameter with the policy, and the error for an invalid one."""


def check_resource_policy(request: Request) -> None:
    """Check the resource policy that a request sets, if it sets one.

    Raises:
        RequestRefusedError: it cannot be evaluated.
    """
    text: str | bytes
    if request.service == "s3":
        if operation_of(request).name != "PutBucketPolicy":
            return
        text, code = request.body, "MalformedPolicy"
    else:
        parameter, code = _BY_PARAMETER.get((request.service, request.action or ""), ("", ""))
        text = request.parameter(parameter) if parameter else ""
        if not text:
            return
    try:
        parse(text, "the request")
    except MlopsError as error:
        raise RequestRefusedError(400, code, error.what) from None
