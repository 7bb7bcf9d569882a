"""Errors of the machine, AWS and the cluster become errors for people; faults of the program do not."""

from __future__ import annotations

import errno
import os
import subprocess
from types import SimpleNamespace
from typing import Any

import botocore.exceptions as aws
import httpx2
import pytest
from botocore.parsers import ResponseParserError
from lightkube.core.exceptions import ApiError, ConfigError

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.outside_errors import explain, fix_of_output


def refused_by_aws(code: str) -> Exception:
    error: Exception = aws.ClientError({"Error": {"Code": code, "Message": "because"}}, "PutObject")
    return error


def refused_by_cluster(code: int) -> Exception:
    request = httpx2.Request("GET", "https://cluster")
    answer = {"code": code, "message": f"no: {code}", "status": "Failure"}
    return ApiError(request=request, response=httpx2.Response(code, json=answer, request=request))


def of_machine(number: int, file: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), file) if file else OSError(number, os.strerror(number))


CASES: dict[str, tuple[BaseException, str, str]] = {
    "full disk": (of_machine(errno.ENOSPC, "/a/state"), "the disk is full: /a/state", "free disk space"),
    "full disk in Arrow": (OSError("IOError: … [errno 28] No space left on device"), "the disk is full", "free disk"),
    "quota": (of_machine(errno.EDQUOT), "the disk is full", "free disk space"),
    "read-only disk": (of_machine(errno.EROFS, "/a"), "/a: Read-only", "can be written"),
    "permission": (of_machine(errno.EACCES, "/a"), "/a: Permission denied", "owner"),
    "open files": (of_machine(errno.EMFILE), "Too many open files", "ulimit"),
    "missing program": (of_machine(errno.ENOENT, "aws"), "aws: No such file", "install it"),
    "missing file": (of_machine(errno.ENOENT, "/a/b"), "/a/b: No such file", "check the path"),
    "refused connection": (of_machine(errno.ECONNREFUSED), "does not answer", "network"),
    "memory": (MemoryError(), "no memory left", "more memory"),
    "time-out": (subprocess.TimeoutExpired(["gh", "api"], 5), "timed out after 5 s", "by hand"),
    "expired token": (refused_by_aws("ExpiredToken"), "have expired: PutObject", "aws sso login"),
    "unknown key": (refused_by_aws("InvalidClientTokenId"), "does not know these credentials", "AWS_PROFILE"),
    "denied": (refused_by_aws("AccessDenied"), "AWS denied PutObject: AccessDenied: because", "permission"),
    "any code": (refused_by_aws("SlowDown"), "AWS refused PutObject: SlowDown", "try again later"),
    "no credentials": (aws.NoCredentialsError(), "Unable to locate credentials", "aws sso login"),
    "half a credential": (aws.PartialCredentialsError(provider="env", cred_var="x"), "x", "aws sso login"),
    "sign-in is over": (aws.UnauthorizedSSOTokenError(), "SSO", "aws sso login"),
    "profile": (aws.ProfileNotFound(profile="nobody"), "nobody", "unset it"),
    "region": (aws.NoRegionError(), "region", "AWS_REGION"),
    "endpoint": (aws.EndpointConnectionError(endpoint_url="http://x"), "http://x", "AWS_ENDPOINT_URL"),
    "another server": (ResponseParserError("Unable to parse"), "Unable to parse", "AWS_ENDPOINT_URL"),
    "cluster sign-in": (refused_by_cluster(401), "does not accept the credentials", "update-kubeconfig"),
    "cluster denies": (refused_by_cluster(403), "denied it", "mlops cluster roles"),
    "cluster fails": (refused_by_cluster(500), "cannot be used", "try again"),
    "kubeconfig": (ConfigError("no such context"), "no such context", "KUBECONFIG"),
    "proxy": (httpx2.ProxyError("407 Proxy Authentication Required"), "407", "network"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_error_from_outside_says_what_is_wrong_and_what_to_do(case: str) -> None:
    error, what, fix = CASES[case]
    found = explain(error)
    assert found is not None
    assert what in found.what
    assert fix in found.fix
    assert "\n" not in found.what


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), AssertionError(), ValueError("x"), RuntimeError()])
def test_a_fault_of_the_program_keeps_its_traceback(error: Exception) -> None:
    assert explain(error) is None


def test_an_error_for_people_stays_as_it_is() -> None:
    error = MlopsError("a", fix="b")
    assert explain(error) is error


def test_an_error_of_another_package_is_not_taken_for_one_of_the_cluster() -> None:
    error: Any = type("ApiError", (Exception,), {"__module__": "lightkubes.core"})()
    error.status = SimpleNamespace(code=401)
    assert explain(error) is None


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        (
            "error: constructing secrets manager: passphrase must be set with PULUMI_CONFIG_PASSPHRASE",
            "secretsprovider",
        ),
        ("operation error S3: ListObjectsV2, api error InvalidAccessKeyId: The AWS Access Key Id", "sign in again"),
        ("no EC2 IMDS role found, operation error ec2imds: GetMetadata, canceled", "sign in again"),
        ("User: arn:aws:iam::1:user/a is not authorized to perform: eks:DescribeCluster", "ask for the permission"),
        ("something else", ""),
    ],
)
def test_what_a_command_line_tool_says_about_aws_has_a_fix(said: str, fix: str) -> None:
    found = fix_of_output(said)
    assert fix in found and bool(found) == bool(fix)
