"""Tests of the account's process: private files, atomic writes, no leftovers."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from laptop.aws.account import Account, running, start
from pipelines.declarations.errors import MlopsError

pytestmark = pytest.mark.slow


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie is dead, too.
    return Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_its_files_are_private_and_its_log_has_no_secret(account: Account) -> None:
    secret = (account.home / "credentials").read_text().split()[-1]
    for name in ("account.json", "credentials", "config", "pod-identity-credentials"):
        assert stat.S_IMODE((account.home / name).stat().st_mode) == 0o600
    assert secret not in (account.home / "account.log").read_text()
    assert secret not in (account.home / "account.json").read_text()
    arguments = Path(f"/proc/{account.pid}/cmdline")
    if arguments.exists():
        assert secret not in arguments.read_text()


def test_a_client_needs_only_the_aws_variables(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in account.environ().items():
        monkeypatch.setenv(name, value)
    session = boto3.Session()
    assert session.client("sts").get_caller_identity()["Arn"].endswith(":user/operator")
    assert session.region_name == account.region


def test_it_listens_on_the_loopback_device_only(account: Account) -> None:
    host, port = account.endpoint.removeprefix("http://").split(":")
    assert host == "127.0.0.1"
    # A server on every address answers on this one, too.
    with pytest.raises(OSError, match=r"refused|timed out|assign"):
        socket.create_connection(("127.0.0.2", int(port)), timeout=2)


def test_a_running_account_is_found_and_a_stopped_one_is_not(home: Path) -> None:
    first = start(home)
    try:
        found = running(home)
        assert found is not None
        assert found.incarnation == first.incarnation
    finally:
        first.stop()
    assert running(home) is None
    second = start(home)
    second.stop()
    assert second.incarnation != first.incarnation


def test_a_port_in_use_is_reported(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MlopsError, match=f"127.0.0.1:{port}: the port is in use"):
            start(home, port=port)


def test_it_ends_when_the_process_that_started_it_is_killed(home: Path) -> None:
    program = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from laptop.aws.account import start
        print(start(Path({str(home)!r})).pid, flush=True)
        time.sleep(60)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.communicate()
    assert within(10, lambda: gone(pid))


def test_exactly_one_of_many_concurrent_creates_succeeds(client: Callable[[str], Any], bucket: str) -> None:
    s3 = client("s3")

    def create(number: int) -> bool:
        try:
            s3.put_object(Bucket=bucket, Key="ledger/1", Body=str(number).encode(), IfNoneMatch="*")
        except ClientError as error:
            if error.response["Error"]["Code"] != "PreconditionFailed":
                raise
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(16))) == 1


def test_concurrent_compare_and_swaps_lose_no_update(client: Callable[[str], Any], bucket: str) -> None:
    s3 = client("s3")
    s3.put_object(Bucket=bucket, Key="counter", Body=b"0")

    def increment(_: int) -> None:
        while True:
            found = s3.get_object(Bucket=bucket, Key="counter")
            value = int(found["Body"].read()) + 1
            try:
                s3.put_object(Bucket=bucket, Key="counter", Body=str(value).encode(), IfMatch=found["ETag"])
            except ClientError as error:
                if error.response["Error"]["Code"] != "PreconditionFailed":
                    raise
            else:
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(increment, range(12)))
    assert s3.get_object(Bucket=bucket, Key="counter")["Body"].read() == b"12"


@pytest.mark.parametrize("key", ["a b", "ä/ö", "a+b", "a=b&c", "a//b", "per%20cent", "date=2026-01-01/x.parquet", "~"])
def test_the_signature_of_any_object_key_is_valid(client: Callable[[str], Any], bucket: str, key: str) -> None:
    s3 = client("s3")
    s3.put_object(Bucket=bucket, Key=key, Body=b"1", Metadata={"some_key": "v"})
    assert s3.get_object(Bucket=bucket, Key=key)["Metadata"] == {"some_key": "v"}
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]] == [key]


def test_a_multipart_upload_arrives_complete(client: Callable[[str], Any], bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(os.urandom(1024) * 1024 * 9)  # above the 8 MiB from which boto3 sends parts
    client("s3").upload_file(str(source), bucket, "large")
    client("s3").download_file(bucket, "large", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_the_description_has_no_credentials(account: Account) -> None:
    described = json.loads((account.home / "account.json").read_text())
    assert described.keys() == {"endpoint", "incarnation", "pid", "region", "account"}


def test_an_update_of_a_glue_table_that_another_has_changed_is_refused(client: Callable[[str], Any], name: str) -> None:
    glue, table = client("glue"), {"Name": "visits", "Parameters": {"a": "1"}}
    glue.create_database(DatabaseInput={"Name": name})
    glue.create_table(DatabaseName=name, TableInput=table)
    version = glue.get_table(DatabaseName=name, Name="visits")["Table"]["VersionId"]
    glue.update_table(DatabaseName=name, TableInput=table, VersionId=version)
    with pytest.raises(ClientError, match="ConcurrentModificationException"):
        glue.update_table(DatabaseName=name, TableInput=table, VersionId=version)
    glue.update_table(DatabaseName=name, TableInput=table)
