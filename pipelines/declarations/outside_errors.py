"""Errors of the machine, AWS and the cluster, said for people: a full disk, an expired credential, a wrong variable.

No library is imported for this: an error can only be one of a library that is loaded.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from pipelines.declarations.errors import MlopsError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SIGN_IN = "sign in again, for example with `aws sso login`, or set AWS_PROFILE"
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")
_UNKNOWN = (
    *("InvalidClientTokenId", "InvalidAccessKeyId", "UnrecognizedClientException", "AuthFailure"),
    *("SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature", "MissingAuthenticationToken"),
)
_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "403")


def explain(error: BaseException) -> MlopsError | None:
    """Return an error for people that says the same as an error from outside; None for any other error.

    A fault of this program, such as a `TypeError`, stays as it is: its traceback is what the maintainers need.
    """
    if isinstance(error, MlopsError):
        return error
    if isinstance(error, MemoryError):
        return MlopsError("this process has no memory left", fix="give it more memory, or less data")
    package = type(error).__module__.partition(".")[0]
    if package == "botocore":
        return _of_aws(error)
    if package == "lightkube":
        return _of_cluster(error)
    if package in ("httpx", "httpx2", "httpcore", "urllib3"):
        return MlopsError(f"a server does not answer: {_shown(error)}", fix="check the network, and try again")
    if package == "pyiceberg":
        return MlopsError(
            f"the table cannot be used: {_shown(error)}", fix="try again; if it happens again, check the table"
        )
    if type(error).__name__ == "TimeoutExpired" and package == "subprocess":
        return MlopsError(_shown(error), fix="try again; if it happens again, run the command by hand")
    return _of_machine(error) if isinstance(error, OSError) else None


_SAID = (
    (
        ("passphrase must be set",),
        "restore `secretsprovider: awskms://…` in the stack's file, from git or the bootstrap",
    ),
    ((*_EXPIRED, *_UNKNOWN), _SIGN_IN),
    (("EC2 IMDS", "Unable to locate credentials", "NoCredentialProviders", "get credentials", "SSO session"), _SIGN_IN),
    (("AccessDenied", "is not authorized to perform"), "sign in as a role that may do this, or ask for the permission"),
)
"""Words that a command line tool says about AWS, with the fix."""


def fix_of_output(text: str) -> str:
    """Return what to do about an error that the AWS or the Pulumi CLI printed; "" if it is not known."""
    return next((fix for words, fix in _SAID if any(word in text for word in words)), "")


def _of_machine(error: OSError) -> MlopsError:
    what = error.strerror or str(error) or type(error).__name__
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    if error.errno in _FULL or "No space left" in str(error):  # Arrow's errors have no number
        return MlopsError(f"the disk is full: {where}{what}", fix="free disk space, and run the command again")
    if isinstance(error, PermissionError):
        return MlopsError(f"{where}{what}: expected a file that you may use", fix="check its owner and its permissions")
    if error.errno == errno.EROFS:
        return MlopsError(f"{where}{what}", fix="use a folder that can be written")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return MlopsError(f"{where}{what}", fix="raise the limit: ulimit -n 4096")
    if isinstance(error, FileNotFoundError) and where and "/" not in where:
        return MlopsError(f"{where}{what}: expected a program or file of this name", fix="install it, or create it")
    if isinstance(error, ConnectionError | TimeoutError):
        return MlopsError(f"a server does not answer: {where}{what}", fix="check the network, and try again")
    return MlopsError(f"{where}{what}", fix="check the path" if where else "")


def _of_aws(error: Any) -> MlopsError:
    """Explain an error of botocore."""
    kind = type(error).__name__
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        code, message = (str(response["Error"].get(key, "")) for key in ("Code", "Message"))
        operation = getattr(error, "operation_name", "a request")
        said = f"{operation}: {code}: {message}" if message else f"{operation}: {code}"
        if code in _EXPIRED:
            return MlopsError(f"the AWS credentials have expired: {said}", fix=_SIGN_IN)
        if code in _UNKNOWN:
            return MlopsError(f"AWS does not know these credentials: {said}", fix=_SIGN_IN)
        if code in _DENIED:
            return MlopsError(f"AWS denied {said}", fix="sign in as a role that may do this, or ask for the permission")
        return MlopsError(f"AWS refused {said}", fix="correct what the message names, or try again later")
    fixes = {
        "ProfileNotFound": "set AWS_PROFILE to a profile of ~/.aws/config, or unset it",
        "NoRegionError": "set AWS_REGION",
        "EndpointConnectionError": "check the network, and unset AWS_ENDPOINT_URL if AWS is meant",
        "ResponseParserError": "unset AWS_ENDPOINT_URL if AWS is meant: something else answered",
    }
    signing_in = "Credential" in kind or "Token" in kind or "SSO" in kind
    fix = fixes.get(kind, _SIGN_IN if signing_in else "check the AWS configuration and the network, and try again")
    return MlopsError(f"AWS cannot be used: {_shown(error)}", fix=fix)


def _of_cluster(error: Any) -> MlopsError:
    """Explain an error of lightkube."""
    code = getattr(getattr(error, "status", None), "code", None)
    if code == 401:
        return MlopsError(
            f"the cluster does not accept the credentials: {_shown(error)}",
            fix="sign in again, then: aws eks update-kubeconfig --name CLUSTER",
        )
    if code == 403:
        return MlopsError(
            f"the cluster denied it: {_shown(error)}", fix="ask for the role: mlops cluster roles --env ENV"
        )
    fix = (
        "set KUBECONFIG to a valid file"
        if code is None
        else "try again; if it happens again, check the object by kubectl"
    )
    return MlopsError(f"the cluster cannot be used: {_shown(error)}", fix=fix)


def _shown(error: BaseException) -> str:
    """Return the first line of an error, with its type if it says nothing else."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return line[:500] or type(error).__name__
