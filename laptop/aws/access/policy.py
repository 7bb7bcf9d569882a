"""Policy evaluation of IAM. Pure functions.

Source: AWS IAM user guide, "Policy evaluation logic" and "IAM JSON policy elements".
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Any

from pipelines.declarations.errors import MlopsError

Context = Mapping[str, tuple[str, ...]]
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Caller:
    """Caller of a request.

    Attributes:
        arn: ARN of the user or assumed-role session.
        principals: ARNs by which a policy can name the caller (the session and its role).
        account: account id; "" for an AWS service.
        service: service principal (`pods.eks.amazonaws.com`), or "".
        provider: ARN of the identity provider of a web identity, or "".
    """

    arn: str
    principals: frozenset[str]
    account: str
    service: str = ""
    provider: str = ""


@dataclass(frozen=True)
class Need:
    """One permission that a request needs.

    Attributes:
        action: action such as `s3:GetObject`.
        resource: ARN, or "*" for an action without a resource.
        context: condition keys (lower case) with their values, in addition to the caller's.
        policy: policy of the resource (bucket, key, role trust), or None.
        policy_rules: the resource's policy must allow the caller (KMS keys, role trust). Otherwise an identity policy
            of the same account is enough.
    """

    action: str
    resource: str
    context: Context = field(default_factory=dict)
    policy: Document | None = None
    policy_rules: bool = False


@dataclass(frozen=True)
class Grants:
    """Policies of a caller: identity policies and their limits."""

    identity: tuple[Document, ...] = ()
    boundary: Document | None = None
    session: Document | None = None


class _Match(Enum):
    NO = 0
    ACCOUNT = 1  # the statement names the account and so delegates to its identity policies
    CALLER = 2  # the statement names the role, or everyone
    SESSION = 3  # the statement names the session or the user: then limits must allow nothing


_NAMED = {_Match.CALLER, _Match.SESSION}


def refusal(caller: Caller, grants: Grants, need: Need, context: Context) -> str | None:
    """Return the reason for a refusal in AWS's words; None if the request is allowed.

    Args:
        context: condition keys (lower case) of the whole request.
    """
    known = {**context, **need.context}

    def effects(document: Document, *, resource_policy: bool = False) -> set[tuple[str, _Match]]:
        found: set[tuple[str, _Match]] = set()
        for statement in statements(document):
            match = _principal(statement, caller) if resource_policy else _Match.CALLER
            if match is not _Match.NO and _covers(statement, need, known, document):
                found.add((statement["Effect"], match))
        return found

    in_resource = effects(need.policy, resource_policy=True) if need.policy is not None else set()
    in_identity = [effects(document) for document in grants.identity]
    limits = {
        "permissions boundary": grants.boundary,
        "session policy": grants.session,
    }
    in_limits = {name: effects(document) for name, document in limits.items() if document is not None}

    if any(effect == "Deny" for effect, _ in in_resource):
        return "with an explicit deny in a resource-based policy"
    if any(effect == "Deny" for found in in_identity for effect, _ in found):
        return "with an explicit deny in an identity-based policy"
    for name, found in in_limits.items():
        if any(effect == "Deny" for effect, _ in found):
            return f"with an explicit deny in a {name}"
    if ("Allow", _Match.SESSION) in in_resource:
        return None
    for name, found in in_limits.items():
        if not any(effect == "Allow" for effect, _ in found):
            return f"because no {name} allows the {need.action} action"

    by_identity = any(effect == "Allow" for found in in_identity for effect, _ in found)
    if ("Allow", _Match.CALLER) in in_resource:
        return None
    if caller.service or (need.policy_rules and ("Allow", _Match.ACCOUNT) not in in_resource):
        return f"because no resource-based policy allows the {need.action} action"
    if not by_identity:
        return f"because no identity-based policy allows the {need.action} action"
    return None


def parse(text: str | bytes, what: str) -> Document:
    """Parse and check a policy document.

    Args:
        text: JSON.
        what: owner of the document, for errors.

    Raises:
        MlopsError: the document is invalid or has an unsupported condition operator.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MlopsError(f"the policy of {what} is not JSON: {error}") from error
    if not isinstance(document, dict) or "Statement" not in document:
        raise MlopsError(f"the policy of {what} has no `Statement`", fix="use an IAM policy document.")
    for statement in statements(document):
        if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
            raise MlopsError(f"the policy of {what} has a statement whose `Effect` is neither Allow nor Deny")
        if not ({"Action", "NotAction"} & statement.keys()):
            raise MlopsError(f"the policy of {what} has a statement with no `Action` or `NotAction`")
        _check_elements(statement, what)
        for operator in statement.get("Condition") or {}:
            if _operator(operator) is None:
                raise MlopsError(
                    f"the policy of {what} has the unsupported condition operator `{operator}`",
                    fix="use one of the operators in laptop/aws/access/policy.py.",
                )
    return document


def _check_elements(statement: Document, what: str) -> None:
    """Check the types of a statement's elements.

    Raises:
        MlopsError: an element is neither text nor a list of texts, or a condition or principal has another form.
    """
    condition, keys = statement.get("Condition", {}), ("Action", "NotAction", "Resource", "NotResource")
    problems = {name: "a text or a list of texts" for name in keys if not _are_texts(statement.get(name, "*"))}
    tests = list(condition.values()) if isinstance(condition, dict) else [None]
    values = [value for test in tests if isinstance(test, dict) for value in test.values()]
    if not all(isinstance(test, dict) for test in tests) or not all(
        _are_texts(value, str | int | float) for value in values
    ):
        problems["Condition"] = "operators with keys, and a value or a list of values for each key"
    for name in ("Principal", "NotPrincipal"):
        principal = statement.get(name, "*")
        named = principal.values() if isinstance(principal, dict) else [principal if principal == "*" else None]
        if not all(map(_are_texts, named)):
            problems[name] = '"*", or kinds of principals with a text or a list of texts each'
    for name, expected in problems.items():
        raise MlopsError(f"`{name}` in the policy of {what}: expected {expected}, found {json.dumps(statement[name])}")


def _are_texts(value: Any, kind: Any = str) -> bool:
    """Return whether a value is of a scalar type, or a list of such values."""
    return all(isinstance(one, kind) for one in (value if isinstance(value, list) else [value]))


def statements(document: Document) -> list[dict[str, Any]]:
    """Return the statements of a policy; a single one may come without a list."""
    found = document["Statement"]
    return found if isinstance(found, list) else [found]


def _covers(statement: Document, need: Need, context: Context, document: Document) -> bool:
    variables = document.get("Version") == _WITH_VARIABLES
    if "Action" in statement:
        acts = any(matches(action, need.action, ignore_case=True) for action in _many(statement["Action"]))
    else:
        acts = not any(matches(action, need.action, ignore_case=True) for action in _many(statement["NotAction"]))
    if not acts:
        return False

    def on(patterns: Any) -> bool:
        return any(
            pattern is not None and pattern.fullmatch(need.resource) is not None
            for pattern in (_filled(text, context if variables else None) for text in _many(patterns))
        )

    if "Resource" in statement:
        about = on(statement["Resource"])
    elif "NotResource" in statement:
        about = not on(statement["NotResource"])
    else:
        about = document is need.policy  # trust policies and ECR policies apply to their own resource
    if not about:
        return False
    return all(
        _holds(operator, key, _many(values), context, variables=variables)
        for operator, keys in (statement.get("Condition") or {}).items()
        for key, values in keys.items()
    )


def _principal(statement: Document, caller: Caller) -> _Match:
    if caller.provider and statement["Effect"] == "Allow":
        # A web identity is allowed by its provider's ARN only, never by a wildcard.
        return _Match.CALLER if _names_provider(statement.get("Principal"), caller) else _Match.NO
    if "NotPrincipal" in statement:
        named = _named(statement["NotPrincipal"], caller)
        return _Match.NO if named in _NAMED else _Match.CALLER
    return _named(statement.get("Principal", {}), caller)


def _named(principal: Any, caller: Caller) -> _Match:
    if principal == "*":
        return _Match.CALLER
    if not isinstance(principal, dict):
        return _Match.NO
    if caller.service:
        return _Match.CALLER if caller.service in _many(principal.get("Service", [])) else _Match.NO
    if caller.provider:
        return (
            _Match.CALLER if "*" in _many(principal.get("AWS", [])) or _names_provider(principal, caller) else _Match.NO
        )
    found = _Match.NO
    names = _many(principal.get("AWS", []))
    if caller.arn in names:
        return _Match.SESSION
    for name in names:
        if name == "*" or name in caller.principals:
            return _Match.CALLER
        if name == caller.account or re.fullmatch(rf"arn:[^:]+:iam::{re.escape(caller.account)}:root", name):
            found = _Match.ACCOUNT
    return found


def _names_provider(principal: Any, caller: Caller) -> bool:
    return isinstance(principal, dict) and caller.provider in _many(principal.get("Federated", []))


def _expression(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


@lru_cache(maxsize=4096)
def _pattern(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    return re.compile(_expression(pattern), re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def matches(pattern: str, value: str, *, ignore_case: bool = False) -> bool:
    """Return True if a value matches an IAM pattern: `*` is any text, `?` any one character."""
    return _pattern(pattern, ignore_case).fullmatch(value) is not None


_WITH_VARIABLES = "2012-10-17"
"""Version of the policy language with variables. In other versions, `${...}` stands for itself."""

_VARIABLE = re.compile(r"\$\{([^}]+)\}")
_LITERALS = ("*", "?", "$")


def _parts(text: str, context: Context | None) -> list[tuple[str, bool]] | None:
    """Split a text of a policy into parts, each with True if its wildcards count.

    The value of a variable has none. Return None if a variable has no single value, in which case nothing matches.

    Args:
        context: condition keys; None if the policy has no variables.
    """
    if context is None:
        return [(text, True)]
    parts: list[tuple[str, bool]] = []
    end = 0
    for found in _VARIABLE.finditer(text):
        parts.append((text[end : found.start()], True))
        end = found.end()
        name, _, default = found[1].partition(",")
        values = (name,) if name in _LITERALS else context.get(name.strip().lower(), ())
        if len(values) == 1:
            parts.append((values[0], False))
        elif default:
            parts.append((default.strip().strip("'"), False))
        else:
            return None
    return [*parts, (text[end:], True)]


def _fill(text: str, context: Context | None) -> str | None:
    """Replace policy variables by their values; return None if one has no single value."""
    parts = _parts(text, context)
    return None if parts is None else "".join(part for part, _ in parts)


def _filled(text: str, context: Context | None) -> re.Pattern[str] | None:
    """Return a pattern with its variables replaced; None if one has no single value."""
    if context is None or "${" not in text:
        return _pattern(text, False)
    parts = _parts(text, context)
    if parts is None:
        return None
    return re.compile("".join(_expression(part) if wild else re.escape(part) for part, wild in parts), re.DOTALL)


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _moment(value: str) -> datetime:
    if re.fullmatch(r"\d+", value):
        return datetime.fromtimestamp(int(value), UTC)
    moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _within(expected: str, actual: str) -> bool:
    return ipaddress.ip_address(actual) in ipaddress.ip_network(expected, strict=False)


_SEGMENTS = 6


def _arn_fits(expected: str, actual: str, context: Context | None) -> bool:
    """Return True if each segment of an ARN matches that of a pattern."""
    patterns, parts = expected.split(":", _SEGMENTS - 1), actual.split(":", _SEGMENTS - 1)
    if context is not None and "${" in expected:  # a name of a variable has colons, too
        hidden = _VARIABLE.sub(lambda found: found[0].replace(":", "\0"), expected)
        patterns = [part.replace("\0", ":") for part in hidden.split(":", _SEGMENTS - 1)]
    if not len(patterns) == len(parts) == _SEGMENTS:
        return False
    filled = [_filled(pattern, context) for pattern in patterns]
    return all(one is not None and one.fullmatch(part) for one, part in zip(filled, parts, strict=True))


_Compare = Callable[[str, str], bool]  # (value in the policy, value in the request)

_OPERATORS: dict[str, _Compare] = {
    "StringEquals": lambda expected, actual: expected == actual,
    "StringEqualsIgnoreCase": lambda expected, actual: expected.lower() == actual.lower(),
    "StringLike": matches,
    "ArnEquals": matches,
    "ArnLike": matches,
    "Bool": lambda expected, actual: expected.lower() == actual.lower(),
    "NumericEquals": lambda expected, actual: float(actual) == float(expected),
    "NumericLessThan": lambda expected, actual: float(actual) < float(expected),
    "NumericLessThanEquals": lambda expected, actual: float(actual) <= float(expected),
    "NumericGreaterThan": lambda expected, actual: float(actual) > float(expected),
    "NumericGreaterThanEquals": lambda expected, actual: float(actual) >= float(expected),
    "DateEquals": lambda expected, actual: _moment(actual) == _moment(expected),
    "DateLessThan": lambda expected, actual: _moment(actual) < _moment(expected),
    "DateLessThanEquals": lambda expected, actual: _moment(actual) <= _moment(expected),
    "DateGreaterThan": lambda expected, actual: _moment(actual) > _moment(expected),
    "DateGreaterThanEquals": lambda expected, actual: _moment(actual) >= _moment(expected),
    "IpAddress": _within,
    "BinaryEquals": lambda expected, actual: expected == actual,
}
# Negated operators: no value may match, and an absent key satisfies them.
_NEGATIVES = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
    "NotIpAddress": "IpAddress",
}


@dataclass(frozen=True)
class _Operator:
    kind: str  # name of the operator without quantifier, negation and IfExists
    compare: _Compare | None  # None for Null
    negative: bool
    if_exists: bool
    quantifier: str  # "ForAllValues", "ForAnyValue" or ""


@lru_cache(maxsize=256)
def _operator(name: str) -> _Operator | None:
    quantifier, colon, rest = name.partition(":")
    if not colon:
        quantifier, rest = "", name
    elif quantifier not in ("ForAllValues", "ForAnyValue"):
        return None
    if_exists = rest.endswith("IfExists")
    rest = rest.removesuffix("IfExists")
    if rest == "Null":
        return None if if_exists or quantifier else _Operator(rest, None, False, False, "")
    kind = _NEGATIVES.get(rest, rest)
    compare = _OPERATORS.get(kind)
    return _Operator(kind, compare, rest in _NEGATIVES, if_exists, quantifier) if compare else None


def _holds(name: str, key: str, expected: Sequence[Any], context: Context, *, variables: bool = True) -> bool:
    operator = _operator(name)
    if operator is None:
        raise MlopsError(f"a policy has the unsupported condition operator `{name}`")
    actual = context.get(key.lower(), ())
    if operator.compare is None:
        return any((_text(value).lower() == "true") == (not actual) for value in expected)
    if not actual:
        if operator.if_exists:
            return True
        if operator.quantifier:
            return operator.quantifier == "ForAllValues"
        return operator.negative
    wanted = [_text(value) for value in expected]
    given = context if variables else None

    def fits(value: str) -> bool:
        return any(_compares(operator, text, value, given) for text in wanted) is not operator.negative

    if operator.quantifier == "ForAllValues":
        return all(fits(value) for value in actual)
    if operator.quantifier == "ForAnyValue":
        return any(fits(value) for value in actual)
    if operator.negative:
        return all(fits(value) for value in actual)
    return any(fits(value) for value in actual)


def _compares(operator: _Operator, expected: str, actual: str, context: Context | None) -> bool:
    """Compare one value of a policy with one of the request. Only strings and ARNs have variables.

    Args:
        context: condition keys; None if the policy has no variables.
    """
    if operator.kind.startswith("Arn"):
        return _arn_fits(expected, actual, context)
    if operator.kind == "StringLike":
        pattern = _filled(expected, context)
        return pattern is not None and pattern.fullmatch(actual) is not None
    if operator.kind.startswith("String"):
        filled = _fill(expected, context)
        return filled is not None and operator.compare is not None and operator.compare(filled, actual)
    try:
        return operator.compare is not None and operator.compare(expected, actual)
    except ValueError:  # not a number, a date or an address: no match
        return False
