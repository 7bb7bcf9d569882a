"""The token with which EventBridge sends the alarms of an environment to GitHub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.declarations.alarm_events import connection_name
from pipelines.declarations.environment import GitHubAlarms
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.gh import Gh
from pipelines.registry import clients

_HEADER = "Authorization"
_SAME_SECONDS = 1.0
"""A connection that was changed within this time of its creation has the token that it was created with."""


def set_alarm_token(project: Project, environment: str, token: str) -> None:
    """Give EventBridge the token for an environment's alarms. EventBridge keeps it in AWS Secrets Manager.

    Args:
        project: the repository.
        environment: the environment's name.
        token: a token of GitHub that may send events to the repository.

    Raises:
        MlopsError: the environment delivers no alarms, the token may not send events, or AWS refused.
    """
    github = delivery(project, environment)
    if not token.strip() or any(letter.isspace() for letter in token.strip()):
        raise MlopsError("the token: expected one word, found none or several", fix="put only the token into the file")
    _check(Gh(project.root, github.repository, token.strip()), github.repository)
    client = clients.client("events", project.stack(environment).config.region)
    key = {"ApiKeyName": _HEADER, "ApiKeyValue": f"Bearer {token.strip()}"}
    try:
        client.update_connection(
            Name=connection_name(f"{project.name}-{environment}"),
            AuthorizationType="API_KEY",
            AuthParameters={"ApiKeyAuthParameters": key},
        )
    except (BotoCoreError, ClientError) as error:
        if getattr(error, "response", {}).get("Error", {}).get("Code") == "ResourceNotFoundException":
            raise MlopsError(
                f"{environment} has no connection to GitHub yet", fix=f"mlops up --env {environment}, then try again"
            ) from None
        raise MlopsError(
            f"the token was not set: {error}",
            fix="sign in as an administrator of the account: this needs events:UpdateConnection, and "
            "secretsmanager:UpdateSecret for the secrets events!connection/*",
        ) from None


def delivery(project: Project, environment: str) -> GitHubAlarms:
    """Return where an environment's alarms go.

    Raises:
        MlopsError: nowhere.
    """
    github = project.stack(environment).config.environment.monitoring.github
    if github is None:
        raise MlopsError(
            f"the alarms of {environment} are not delivered to GitHub: monitoring.github is not set",
            fix=f"set monitoring.github.repository in {project.stack_file(environment).name}, and bring it up",
        )
    return github


def describe_delivery(found: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether a connection can deliver alarms, and its state.

    Args:
        found: answer of DescribeConnection.
    """
    name, state = str(found["Name"]), str(found["ConnectionState"])
    created, changed = found["CreationTime"], found.get("LastModifiedTime")
    if state != "AUTHORIZED":
        return False, f"{name} is {state}"
    if changed is not None and abs((changed - created).total_seconds()) < _SAME_SECONDS:
        return False, f"{name}: the token is not set"
    return True, name


def _check(gh: Gh, repository: str) -> None:
    """Check that a token may send events: GitHub asks for write access to the contents of the repository.

    Raises:
        MlopsError: it may not.
    """
    about = gh.request("GET", f"repos/{repository}")
    if not (about.get("permissions") or {}).get("push"):
        raise MlopsError(
            f"the token may not send events to {repository}: expected write access to its contents, found none",
            fix="create a fine-grained token for this repository with the permission Contents: read and write",
        )
