"""aws-actions/configure-aws-credentials and aws-actions/amazon-ecr-login, in the emulated account."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from laptop.aws.access.web_identity import published_keys
from laptop.aws.account import ISSUERS
from laptop.github.actions import Answer, Call
from laptop.github.oidc import Issuer
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


def configure_credentials(call: Call) -> Answer:
    """Get credentials of a role for the steps that follow; output `aws-account-id`.

    As on GitHub: the job's OIDC token, signed by the laptop's issuer, is exchanged for the role by STS of the emulated
    account, which checks the token and the role's trust policy.

    Raises:
        MlopsError: the job may not have an OIDC token, or the role would not let it in.
    """
    from botocore.exceptions import ClientError

    call.forge.authenticate(call.token).need("write", "id-token")
    arn, region = call.input("role-to-assume"), call.input("aws-region")
    match = _ROLE.fullmatch(arn)
    if match is None or not region:
        what = f"configure-aws-credentials: role-to-assume is {arn!r} and aws-region {region!r}"
        raise MlopsError(what, fix="give an ARN and a region: set the variables that the workflow takes them from")
    allowed = call.input("allowed-account-ids")
    if allowed and match["account"] not in re.split(r"[\s,]+", allowed):
        raise MlopsError(f"configure-aws-credentials: the account {match['account']} is not among {allowed}")
    claims = _claims(call)
    forge = call.forge.folder
    token = Issuer(forge, published_keys(forge.parent / "aws" / ISSUERS, ISSUER)).token(claims)
    call.mask(token)
    # Nobody's credentials: the token is all that speaks for the job.
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
            f"{refused['Code']}: {refused['Message']}",
            fix="let the role trust this subject, or run the job in the environment that it trusts",
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
    return Answer({"aws-account-id": match["account"]}, exports)


def _claims(call: Call) -> dict[str, str]:
    """What GitHub's OIDC token says of the job."""
    settings = call.forge.settings
    ids = (settings.owner_id, settings.repository_id) if settings.subject_with_ids else (None, None)
    repository = call.forge.repository
    event = call.event
    return {
        "aud": call.input("audience", AUDIENCE),
        "sub": subject(
            repository,
            environment=call.environment,
            event=event.name,
            ref=event.ref,
            owner_id=ids[0],
            repository_id=ids[1],
        ),
        "repository": repository,
        "repository_owner": repository.split("/")[0],
        "ref": event.ref,
        "event_name": event.name,
        "actor": event.actor,
        "environment": call.environment,
        "job_workflow_ref": f"{repository}/{call.workflow}@{event.ref}",
    }


def login_to_registry(call: Call) -> Answer:
    """Output `registry`: that of the account that the job's credentials are of. There is no Docker to log in.

    Raises:
        MlopsError: the job has no credentials.
    """
    region = call.environ.get("AWS_REGION", "")
    if "AWS_ACCESS_KEY_ID" not in call.environ or not region:
        raise MlopsError(
            "amazon-ecr-login: there are no credentials", fix="run aws-actions/configure-aws-credentials first"
        )
    account = _client(call.environ, "sts", region).get_caller_identity()["Account"]
    return Answer({"registry": f"{account}.dkr.ecr.{region}.amazonaws.com"})


def _client(environ: Mapping[str, str], service: str, region: str) -> Any:
    """A client with the access that `environ` gives, and nothing of this process's own environment."""
    import botocore.session

    session = botocore.session.Session(profile=None)
    for variable, name in (("credentials_file", "AWS_SHARED_CREDENTIALS_FILE"), ("config_file", "AWS_CONFIG_FILE")):
        session.set_config_variable(variable, environ.get(name, "/dev/null"))
    keys = [environ.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")]
    if keys[0]:
        session.set_credentials(*keys)
    return session.create_client(service, region_name=region, endpoint_url=environ.get("AWS_ENDPOINT_URL"))
