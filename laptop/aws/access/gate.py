"""Gate in front of the laptop's account: authenticates and authorizes every request."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from laptop.aws.access import sigv4, web_identity
from laptop.aws.access.effective_values import EffectiveValues
from laptop.aws.access.glue_versions import check_table_version
from laptop.aws.access.policy import Context, Need, refusal
from laptop.aws.access.principals import AssumedSessions, Principal, Principals
from laptop.aws.access.request import Request, RequestRefusedError
from laptop.aws.access.request_permissions import needs, request_tags
from laptop.aws.access.resource_policies import check_resource_policy
from laptop.aws.access.s3_deletions import answer_with, content_of, deletes_many, deletions
from laptop.aws.access.s3_permissions import deletion_needs
from laptop.aws.access.s3_preconditions import check_preconditions
from pipelines.declarations.errors import MlopsError

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

# Paths that moto serves in addition to the AWS API.
_CLOSED = ("/moto-api", "/latest/", "/v20180820/", "//")
CHANGES = ("PUT", "POST", "DELETE")
"""HTTP methods by which S3 is changed."""

_JSON = {"kms", "glue", "ecr", "eks", "logs", "events", "monitoring", "sqs", "dynamodb", "sagemaker"}


class Gate:
    """WSGI middleware in front of moto.

    Args:
        application: moto. The caller sends one request at a time.
        principals: principals by access key.
        authority: the only accepted `Host` (`127.0.0.1:4566`), because moto derives bucket names and services from it.
        issuers: folder with the published keys of identity providers.
        key_tags: tags of KMS keys that are in effect; every change counts at once if None.
        faults: returns the faults that the account has now; see `laptop.faults`.
    """

    def __init__(
        self,
        application: Application,
        principals: Principals,
        authority: str,
        issuers: Path,
        key_tags: EffectiveValues[Context] | None = None,
        faults: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._faults = faults
        self._key_tags = key_tags or EffectiveValues[Context](0.0)
        self._application = application
        self._principals = principals
        self._authority = authority
        self._issuers = issuers

    def __call__(self, environ: Environ, body: bytes, start_response: StartResponse) -> Iterable[bytes]:
        headers = _headers(environ)
        signed = sigv4.parse(headers.get("authorization", ""))
        if signed is None:
            return self._unsigned(environ, headers, body, start_response)
        uri = environ.get("RAW_URI") or environ["REQUEST_URI"]
        request = Request(signed.service, signed.region, environ["REQUEST_METHOD"], uri, headers, body)

        def refuse(code: str, message: str) -> Iterable[bytes]:
            return _refuse(start_response, signed.service, 403, code, message)

        if signed.service == "s3" and (fault := s3_fault(request.method, self._faults())):
            return _refuse(start_response, "s3", 503, *fault)
        if signed.service == "ecr" and "ecr-throttled" in self._faults():
            return _refuse(start_response, "ecr", 400, "ThrottlingException", "Rate exceeded")
        if signed.service == "events" and request.action == "PutEvents" and "eventbridge-down" in self._faults():
            return _refuse(start_response, "events", 500, "InternalException", "The service has an internal error.")
        if headers.get("host") != self._authority or "x-moto-account-id" in headers:
            return refuse("AccessDenied", f"The account is served at {self._authority} only.")
        if request.path.startswith(_CLOSED):
            return refuse("AccessDenied", f"{request.path} is not part of the AWS API.")
        principal = self._principals.find(signed.access_key)
        if principal is None:
            code = "InvalidAccessKeyId" if signed.service == "s3" else "InvalidClientTokenId"
            return refuse(code, "The access key id does not exist in this account.")
        problem = _credentials_problem(principal, headers) or sigv4.problem(
            signed,
            principal.secret,
            method=request.method,
            uri=uri,
            headers=headers,
            body=body,
        )
        if problem is not None:
            return refuse(problem, "The signature does not match the credentials.")
        try:
            if _exchanges_token(request):
                return self._exchange(request, environ, start_response)
            if deletes_many(request):
                return self._delete_many(request, principal, environ, start_response)
            denied = self._denied(request, principal)
            if denied is None:
                check_preconditions(request)
                check_table_version(request)
                check_resource_policy(request)
        except MlopsError as error:
            return refuse("AccessDenied", f"A policy cannot be evaluated: {error.what}")
        except RequestRefusedError as error:
            return _refuse(start_response, signed.service, error.status, error.code, str(error))
        if denied is not None:
            return refuse(
                "AccessDenied" if signed.service in ("s3", "iam", "sts", "elasticloadbalancing") else _NOT_JSON, denied
            )
        return self._pass(request, environ, start_response)

    def _unsigned(
        self, environ: Environ, headers: Mapping[str, str], body: bytes, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Exchange a web identity token for a role's credentials. Refuse any other unsigned request."""
        uri = environ.get("RAW_URI") or environ["REQUEST_URI"]
        request = Request("sts", "us-east-1", environ["REQUEST_METHOD"], uri, headers, body)
        elsewhere = headers.get("host") != self._authority or "x-moto-account-id" in headers
        if elsewhere or "authorization" in headers or not web_identity.asks_for(request):
            return _refuse(
                start_response,
                _likely_service(headers),
                403,
                "AccessDenied",
                "The request has no signature in its headers, and nothing in this account is public.",
            )
        return self._exchange(request, environ, start_response)

    def _exchange(self, request: Request, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Exchange a web identity token. A signature on the request adds nothing."""
        try:
            request.check()
            checked = web_identity.checked_body(request, self._issuers, self._principals.trust_of)
        except (web_identity.TokenRefusedError, RequestRefusedError) as error:
            return _refuse(start_response, "sts", error.status, error.code, str(error))
        except MlopsError as error:
            return _refuse(start_response, "sts", 403, "AccessDenied", f"A policy cannot be evaluated: {error.what}")
        sessions = AssumedSessions()
        answer = list(self._application(_with_content(environ, checked), start_response))
        made = sessions.new()
        if made is not None:
            self._principals.issue(made)
        return answer

    def _delete_many(
        self, request: Request, principal: Principal, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Delete the objects that the caller may delete, and name the others in the answer, as S3 does."""
        bucket = request.path.strip("/")
        chosen, refused = [], []
        for deletion in deletions(request):
            listed = deletion_needs(request, bucket, deletion.key, deletion.version)
            why = self._first_denial(tuple(listed), request, principal)
            if why is None:
                chosen.append(deletion)
            else:
                refused.append((deletion, why))
        if chosen:  # moto gets what was judged, and not the content of the request
            return _answered(
                self._application,
                _with_content(environ, content_of(chosen)),
                start_response,
                lambda answer: answer_with(answer, refused),
            )
        body = answer_with(b"", refused)
        start_response("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    def _denied(self, request: Request, principal: Principal) -> str | None:
        return self._first_denial(needs(request), request, principal)

    def _first_denial(self, needed: tuple[Need, ...], request: Request, principal: Principal) -> str | None:
        """Return AWS's words for the first permission that the caller lacks, or None."""
        context = {**_request_context(request), **principal.context}
        for need in map(self._in_effect, needed):
            why = refusal(principal.caller, principal.grants, need, context)
            if why is not None:
                return (
                    f"User: {principal.caller.arn} is not authorized to perform: {need.action} "
                    f"on resource: {need.resource} {why}"
                )
        return None

    def _in_effect(self, need: Need) -> Need:
        """Return a need with the trust policy or the key's tags that are in effect."""
        if need.action in ("sts:AssumeRole", "sts:TagSession"):
            return replace(need, policy=self._principals.trust_of(need.resource) or {"Statement": []})
        if not (need.action.startswith("kms:") and need.policy_rules):
            return need
        tags = {key: values for key, values in need.context.items() if key.startswith(_TAG)}
        others = {key: values for key, values in need.context.items() if not key.startswith(_TAG)}
        return replace(need, context={**others, **self._key_tags.observe(need.resource, tags)})

    def _pass(self, request: Request, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if request.service == "iam" and not (request.action or "").startswith(("Get", "List", "Simulate")):
            answer = list(self._application(environ, start_response))
            self._principals.observe()
            return answer
        if request.service == "kms" and (request.action or "") in ("TagResource", "UntagResource"):
            answer = list(self._application(environ, start_response))
            for need in needs(request):
                self._in_effect(need)
            return answer
        if request.service != "sts" or request.action != "AssumeRole":
            return self._application(environ, start_response)
        sessions = AssumedSessions()
        answer = list(self._application(environ, start_response))
        made = sessions.new()
        if made is not None:
            self._principals.issue(made)
            self._principals.remember_tags(made, request_tags(request))
        return answer


_NOT_JSON = "AccessDeniedException"
_TAG = "aws:resourcetag/"


_FROM_CLIENT = (("useragent", "user-agent"), ("referer", "referer"))
"""Condition keys that a client sets as it likes, and their headers."""


def _exchanges_token(request: Request) -> bool:
    return request.service == "sts" and request.action == web_identity.ACTION


def _with_content(environ: Environ, content: bytes) -> Environ:
    """Return the environment of a request with other content."""
    return {**environ, "wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content))}


def _answered(
    application: Application, environ: Environ, start_response: StartResponse, change: Callable[[bytes], bytes]
) -> list[bytes]:
    """Call an application and change the body of its answer."""
    started: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], Any]:
        started[:] = [status, headers]
        return lambda _: None

    body = change(b"".join(application(environ, start)))
    status, headers = started
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    start_response(status, [*kept, ("Content-Length", str(len(body)))])
    return [body]


def _credentials_problem(principal: Principal, headers: Mapping[str, str]) -> str | None:
    if headers.get("x-amz-security-token", "") != principal.token:
        return "InvalidToken"
    if principal.expires is not None and principal.expires <= datetime.now(UTC):
        return "ExpiredToken"
    return None


def _request_context(request: Request) -> Context:
    """Return the condition keys of every request.

    A request on the loopback device crosses no network, so it counts as secure transport.
    """
    now = datetime.now(UTC)
    return {
        "aws:securetransport": ("true",),
        "aws:viaawsservice": ("false",),
        **{f"aws:{name}": (request.headers[header],) for name, header in _FROM_CLIENT if header in request.headers},
        "aws:sourceip": ("127.0.0.1",),
        "aws:requestedregion": (request.region,),
        "aws:currenttime": (now.strftime("%Y-%m-%dT%H:%M:%SZ"),),
        "aws:epochtime": (str(int(now.timestamp())),),
    }


def _headers(environ: Environ) -> dict[str, str]:
    found = {
        name[5:].replace("_", "-").lower(): str(value) for name, value in environ.items() if name.startswith("HTTP_")
    }
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            found[name.replace("_", "-").lower()] = str(environ[name])
    for key, original in (environ.get("moto.preserved_header_names") or {}).items():
        found[original.lower()] = found.pop(key[5:].replace("_", "-").lower())
    return found


def _likely_service(headers: Mapping[str, str]) -> str:
    """Guess the service of an unsigned request from its protocol."""
    if "x-amz-target" in headers:
        return "kms"
    return "sts" if "x-www-form-urlencoded" in headers.get("content-type", "") else "s3"


def s3_fault(method: str, faults: Collection[str]) -> tuple[str, str] | None:
    """Return the code and the message with which S3 refuses a request because of a fault; None if it does not.

    Args:
        method: HTTP method of the request.
        faults: faults that the account has now.
    """
    if "s3-down" in faults:
        return "ServiceUnavailable", "Service is unable to handle request."
    if "s3-throttled" in faults and method in CHANGES:
        return "SlowDown", "Please reduce your request rate."
    return None


def _refuse(start: StartResponse, service: str, status: int, code: str, message: str) -> list[bytes]:
    """Send a refusal in the format of the service."""
    if service in _JSON:
        body = json.dumps({"__type": code, "message": message, "Message": message})
        content = "application/x-amz-json-1.1"
    elif service in ("iam", "sts", "sns", "elasticloadbalancing"):
        body = (
            "<ErrorResponse><Error><Type>Sender</Type>"
            f"<Code>{code}</Code><Message>{escape(message)}</Message></Error></ErrorResponse>"
        )
        content = "text/xml"
    else:
        body = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        content = "application/xml"
    start(
        f"{status} {HTTPStatus(status).phrase}",
        [
            ("Content-Type", content),
            ("Content-Length", str(len(body.encode()))),
            ("x-amzn-errortype", code),
        ],
    )
    return [body.encode()]
