"""aws-actions/configure-aws-credentials and aws-actions/amazon-ecr-login, for the laptop's AWS account."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from laptop.aws.access.web_identity import published_keys
from laptop.aws.account import ISSUERS
from laptop.github.actions.remote import ActionCall, ActionResult
from laptop.github.oidc_issuer import Issuer
from laptop.github.trust import AUDIENCE, ISSUER, subject
from pipelines.declarations.errors import MlopsError

CREDENTIALS_INPUTS = frozenset(
    (
        *("role-to-assume", "aws-region", "role-session-name", "role-duration-seconds", "audience"),
        *("mask-aws-account-id", "allowed-account-ids", "unset-current-credentials", "output-credentials"),
    )
)
LOGIN_INPUTS = frozenset(("mask-password", "skip-logout", "registry-type", "registries"))
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::(?P<account>\d{12}):role/(?:.*/)?(?P<name>[\w+=,.@-]{1,64})")


def configure_credentials(call: ActionCall) -> ActionResult:
    """Sign later steps in to a role. Output: `aws-account-id`.

    As on GitHub, STS exchanges the job's OIDC token for credentials of the role, after checking the token and the
    role's trust policy.

    Raises:
        MlopsError: the job lacks `id-token: write`, or the role does not trust its token.
    """
    from botocore.exceptions import ClientError

    call.server.authenticate(call.token).need("write", "id-token")
    arn, region = call.input("role-to-assume"), call.input("aws-region")
    match = _ROLE.fullmatch(arn)
    if match is None or not region:
        what = f"configure-aws-credentials: expected role-to-assume and aws-region, found {arn!r} and {region!r}"
        raise MlopsError(what, fix="set the variables of the role's ARN and of the region")
    allowed = call.input("allowed-account-ids")
    if allowed and match["account"] not in re.split(r"[\s,]+", allowed):
        raise MlopsError(f"configure-aws-credentials: account: expected one of {allowed}, found {match['account']}")
    claims = _claims(call)
    server = call.server.folder
    token = Issuer(server, published_keys(server.parent / "aws" / ISSUERS, ISSUER)).token(claims)
    call.mask(token)
    # Without credentials: the token alone identifies the job.
    sts = _client({"AWS_ENDPOINT_URL": call.runner_environ["AWS_ENDPOINT_URL"]}, "sts", region)
    try:
        answer = sts.assume_role_with_web_identity(
            RoleArn=arn,
            RoleSessionName=call.input("role-session-name", "GitHubActions"),
            WebIdentityToken=token,
            DurationSeconds=int(call.input("role-duration-seconds", "3600")),
        )["Credentials"]
    except ClientError as error:
        refused = error.response["Error"]
        raise MlopsError(
            f"{refused['Code']}: {refused['Message']}: the token's subject is {claims['sub']}",
            fix="make the role trust this subject, or run the job in the environment that it trusts",
        ) from None
    exports = {
        "AWS_ACCESS_KEY_ID": answer["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": answer["SecretAccessKey"],
        "AWS_SESSION_TOKEN": answer["SessionToken"],
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
    }
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        call.mask(exports[name])
    if call.flag("mask-aws-account-id", default=False):
        call.mask(match["account"])
    call.log(f"assumed {arn} as {claims['sub']}")
    return ActionResult({"aws-account-id": match["account"]}, exports)


def _claims(call: ActionCall) -> dict[str, str]:
    """Return the claims of GitHub's OIDC token about the job."""
    settings = call.server.settings
    ids = (settings.owner_id, settings.repository_id) if settings.subject_with_ids else (None, None)
    repository = call.server.full_name
    event = call.event
    claims = {
        "repository": repository,
        "repository_id": str(settings.repository_id),
        "repository_owner": repository.split("/")[0],
        "repository_owner_id": str(settings.owner_id),
        "repository_visibility": "private" if settings.private else "public",
        "ref": event.ref,
        "event_name": event.name,
        "actor": event.actor,
        "environment": call.environment,
        "job_workflow_ref": f"{repository}/{call.workflow}@{event.ref}",
    }
    sub = subject(
        repository,
        environment=call.environment,
        event=event.name,
        ref=event.ref,
        owner_id=ids[0],
        repository_id=ids[1],
        keys=settings.subject_keys,
        claims=claims,
    )
    return {"aud": call.input("audience", AUDIENCE), "sub": sub, **claims}


def login_to_registry(call: ActionCall) -> ActionResult:
    """Output the `registry` of the account that the job is signed in to. Without Docker, no login is needed.

    Raises:
        MlopsError: the job is not signed in.
    """
    region = call.environ.get("AWS_REGION", "")
    if "AWS_ACCESS_KEY_ID" not in call.environ or not region:
        raise MlopsError(
            "amazon-ecr-login: the job is not signed in to AWS", fix="run aws-actions/configure-aws-credentials first"
        )
    account = _client(call.environ, "sts", region).get_caller_identity()["Account"]
    return ActionResult({"registry": f"{account}.dkr.ecr.{region}.amazonaws.com"})


def _client(environ: Mapping[str, str], service: str, region: str) -> Any:
    """Return a client with the credentials in `environ`, not those of this process."""
    import botocore.session

    session = botocore.session.Session(profile=None)
    for variable, name in (("credentials_file", "AWS_SHARED_CREDENTIALS_FILE"), ("config_file", "AWS_CONFIG_FILE")):
        session.set_config_variable(variable, environ.get(name, "/dev/null"))
    keys = [environ.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")]
    if keys[0]:
        session.set_credentials(*keys)
    return session.create_client(service, region_name=region, endpoint_url=environ.get("AWS_ENDPOINT_URL"))
