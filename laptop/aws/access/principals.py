"""Principals by access key, read from moto's stores."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from laptop.aws.access.effective_values import EffectiveValues
from laptop.aws.access.policy import Caller, Context, Document, Grants, parse

ACCOUNT = "123456789012"  # moto's account id
_NOTHING = json.dumps({"Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]})
"""Boundary that does not exist: IAM refuses everything then."""

PARTITION = "aws"
_LONGEST_SESSION = timedelta(hours=12)


@dataclass(frozen=True)
class Principal:
    """A caller with its secret and its policies.

    Attributes:
        token: session token, "" for a long-lived key.
        expires: expiry of the credentials, or None.
        context: condition keys of the caller (`aws:principalarn`, session tags, ...).
    """

    caller: Caller
    secret: str
    grants: Grants
    context: Context
    token: str = ""
    expires: datetime | None = None


@dataclass(frozen=True)
class RoleSettings:
    """Settings of a role that decide what it may do and who may assume it.

    Attributes:
        policies: names and texts of its inline and attached policies.
        boundary: text of its permissions boundary, "" if it has none.
        trust: text of its trust policy, "" for a role that does not exist yet.
        tags: its tags.
    """

    policies: tuple[tuple[str, str], ...] = ()
    boundary: str = ""
    trust: str = ""
    tags: tuple[tuple[str, str], ...] = ()


class Principals:
    """The principals of the account.

    Args:
        policy_delay: seconds until a role and its changes take effect.
        clock: returns seconds.
    """

    def __init__(self, policy_delay: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._roles = EffectiveValues(policy_delay, RoleSettings(), clock)
        self._services: dict[str, Principal] = {}
        self._session_tags: dict[str, Mapping[str, str]] = {}
        self._known_roles: set[str] = set()
        self._issued: dict[str, datetime] = {}

    def add_service(self, service: str, access_key: str, secret: str) -> None:
        """Register an access key for an AWS service. On AWS, services have none; on the laptop, a stand-in for the
        service uses it.
        """
        self._services[access_key] = Principal(
            Caller(service, frozenset(), "", service),
            secret,
            Grants(),
            {"aws:principalisawsservice": ("true",), "aws:principalservicename": (service,)},
        )

    def issue(self, access_key: str) -> None:
        """Note that STS issued a session now."""
        self._issued[access_key] = datetime.now(UTC)

    def remember_tags(self, access_key: str, tags: Mapping[str, str]) -> None:
        """Store the session tags of an assumed role, which moto drops."""
        self._session_tags[access_key] = dict(tags)

    def observe(self) -> None:
        """Note the settings of all roles. Call it after each change, from which its delay counts."""
        found = {role.arn: role for role in _iam().get_roles()}
        for arn, role in found.items():
            self._roles.observe(arn, _settings(role))
        for arn in self._known_roles - found.keys():
            self._roles.forget(arn)
        self._known_roles = set(found)

    def trust_of(self, role_arn: str) -> Document | None:
        """Return the trust policy of a role that is in effect, or None if there is none."""
        role = next((role for role in _iam().get_roles() if role.arn == role_arn), None)
        trust = self._roles.observe(role.arn, _settings(role)).trust if role is not None else ""
        return parse(trust, f"the role {role_arn}") if trust else None

    def role(self, role_arn: str) -> tuple[Caller, Grants] | None:
        """Return a role as a caller, with the policies that are in effect; None if there is no such role."""
        role = next((role for role in _iam().get_roles() if role.arn == role_arn), None)
        if role is None:
            return None
        settings = self._roles.observe(role.arn, _settings(role))
        grants = Grants(
            tuple(parse(text, name) for name, text in settings.policies),
            parse(settings.boundary, f"the boundary of {role.name}") if settings.boundary else None,
        )
        return Caller(role.arn, frozenset({role.arn}), ACCOUNT), grants

    def find(self, access_key: str) -> Principal | None:
        """Return the principal of an access key; None if the key or its role does not exist."""
        if access_key in self._services:
            return self._services[access_key]
        return self._session(access_key) or self._user(access_key)

    def _session(self, access_key: str) -> Principal | None:
        from moto.sts.models import sts_backends

        session = sts_backends[ACCOUNT][PARTITION].get_assumed_role_from_access_key(access_key)
        if session is None:
            return None
        role = next((role for role in _iam().get_roles() if role.arn == session.role_arn), None)
        if role is None:
            return None
        tags, settings = self._session_tags.get(access_key, {}), self._roles.observe(role.arn, _settings(role))
        return Principal(
            Caller(session.arn, frozenset({session.arn, role.arn}), ACCOUNT),
            session.secret_access_key,
            Grants(
                tuple(parse(text, name) for name, text in settings.policies),
                parse(settings.boundary, f"the boundary of {role.name}") if settings.boundary else None,
                parse(session.policy, f"the session {session.session_name}") if session.policy else None,
            ),
            {
                **_described(role.arn, "AssumedRole", session.user_id, {**dict(settings.tags), **tags}),
                "aws:tokenissuetime": (self._issued_at(access_key, session).strftime("%Y-%m-%dT%H:%M:%SZ"),),
                "aws:multifactorauthpresent": ("false",),
            },
            session.session_token,
            session.expiration.replace(tzinfo=UTC),
        )

    def _issued_at(self, access_key: str, session: Any) -> datetime:
        """Return the time at which STS issued a session. moto does not keep it; if unknown, the earliest possible."""
        issued = self._issued.get(access_key)
        return issued if issued is not None else session.expiration.replace(tzinfo=UTC) - _LONGEST_SESSION

    def _user(self, access_key: str) -> Principal | None:
        for user in _iam().users.values():
            for key in user.access_keys:
                if key.access_key_id == access_key and key.status == "Active":
                    documents = [*_documents(user)]
                    for group in _iam().get_groups_for_user(user.name):
                        documents += _documents(group)
                    return Principal(
                        Caller(user.arn, frozenset({user.arn}), ACCOUNT),
                        key.secret_access_key,
                        Grants(tuple(documents)),
                        {**_described(user.arn, "User", user.id, {}), "aws:username": (user.name,)},
                    )
        return None


def trust_of(role_arn: str) -> Document | None:
    """Return the newest trust policy of a role, or None if it does not exist."""
    role = next((role for role in _iam().get_roles() if role.arn == role_arn), None)
    return None if role is None else parse(role.assume_role_policy_document, f"the role {role.name}")


def role_named(name: str) -> Any:
    """Return moto's object for a role, or None."""
    return next((role for role in _iam().get_roles() if role.name == name), None)


@dataclass
class AssumedSessions:
    """Finds the session that an AssumeRole call created."""

    _before: int = field(default_factory=lambda: len(_sessions()))

    def new(self) -> str | None:
        """Return the access key of the new session, or None if there is none."""
        sessions = _sessions()
        return str(sessions[-1].access_key_id) if len(sessions) > self._before else None


def _sessions() -> list[Any]:
    from moto.sts.models import sts_backends

    sessions: list[Any] = sts_backends[ACCOUNT][PARTITION].assumed_roles
    return sessions


def _iam() -> Any:
    from moto.iam.models import iam_backends

    return iam_backends[ACCOUNT][PARTITION]


def _documents(holder: Any) -> Iterator[Document]:
    """Yield the inline and attached policies of a user or group."""
    for name, text in _texts(holder):
        yield parse(text, name)


def _texts(holder: Any) -> Iterator[tuple[str, str]]:
    """Yield names and texts of the inline and attached policies of a user, group or role."""
    for name, text in holder.policies.items():
        yield f"{holder.name} ({name})", text if isinstance(text, str) else json.dumps(text)
    for managed in holder.managed_policies.values():
        yield managed.name, _default(managed)


def _settings(role: Any) -> RoleSettings:
    trust = role.assume_role_policy_document
    return RoleSettings(
        tuple(_texts(role)),
        _boundary(role.permissions_boundary_arn),
        trust if isinstance(trust, str) else json.dumps(trust),
        tuple(sorted(tags_of(role).items())),
    )


def _default(managed: Any) -> str:
    return str(next(version.document for version in managed.versions if version.is_default))


def _boundary(arn: str | None) -> str:
    """Return the text of a permissions boundary, "" without one."""
    if not arn:
        return ""
    policy = _iam().managed_policies.get(arn)
    return _default(policy) if policy is not None else _NOTHING


def tags_of(role: Any) -> dict[str, str]:
    """Return the tags of a role."""
    tags = role.tags
    if isinstance(tags, dict):
        return {str(key): str(value.get("Value", "")) for key, value in tags.items()}
    return {tag["Key"]: tag["Value"] for tag in tags or []}


def _described(arn: str, kind: str, user_id: str, tags: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {
        "aws:principalarn": (arn,),
        "aws:principalaccount": (ACCOUNT,),
        "aws:principaltype": (kind,),
        "aws:principalisawsservice": ("false",),
        "aws:userid": (user_id,),
        **{f"aws:principaltag/{key}".lower(): (value,) for key, value in tags.items()},
    }
