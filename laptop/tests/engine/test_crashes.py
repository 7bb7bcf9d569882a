"""Tests that kill a run at every moment in turn; the next run must reach the same result as an uninterrupted one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from laptop.tests.engine.conftest import Site
from laptop.tests.engine.fake_cloud import FakeCloud, FakeProvider
from pipelines.declarations import atomic_files as files

pytestmark = pytest.mark.slow

START = """
a = Thing("a", zone="x", pin=Output.secret("hunter2hunter2"))
Thing("b", target=a.arn)
pulumi.export("a", a.arn)
"""

FIRST = """
g = Group("g")
a = Thing("a", zone="x", pin=Output.secret("hunter2hunter2"), opts=Opts(parent=g))
b = Thing("b", target=a.arn)
n = Named("n", name="fixed", zone="x")
u = Thing("u", target=n.arn)
Thing("gone", target=b.arn)
r = Thing("r", opts=Opts(retain_on_delete=True))
Paper("p", size=1)
Thing("old")
pulumi.export("b", b.arn)
"""

# Every kind of step: updates, a replacement, one that deletes first along with a dependent, deletions in order, a
# retained resource, a recorded one, and a new one.
SECOND = """
g = Group("g")
a = Thing("a", zone="y", size=7, pin=Output.secret("hunter2hunter2"), opts=Opts(parent=g))
b = Thing("b", target=a.arn)
n = Named("n", name="fixed", zone="y")
u = Thing("u", target=n.arn)
Paper("p", size=2)
Thing("old", size=3)
Thing("new", tags={"uses": b.arn})
pulumi.export("b", b.arn)
"""


class Bomb:
    """Kills this process with SIGKILL at the n-th moment. With n = 0, only counts moments."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.moments: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, moment: str, what: str) -> None:
        with self._lock:
            self.moments.append(f"{moment} {what}")
            if len(self.moments) == self._at:
                os.kill(os.getpid(), signal.SIGKILL)


def run(folder: Path, program: str, bomb: Bomb, **options: Any) -> None:
    """Run an `up` with the bomb around each provider call and each write of the state."""
    write = files.write_atomically
    link = os.link

    def watched(path: Path, data: str | bytes) -> None:
        bomb("before", "write")
        write(path, data)
        bomb("after", "write")

    def watched_link(source: Any, target: Any) -> None:
        bomb("before", "key")
        link(source, target)
        bomb("after", "key")

    with mock.patch.object(files, "write_atomically", watched), mock.patch.object(os, "link", watched_link):
        site = Site(folder, FakeProvider(FakeCloud(folder / "cloud.json"), bomb))
        site.up(program, **options)


def killed_at(folder: Path, program: str, moment: int, **options: Any) -> bool:
    """Run an `up` in a forked process that is killed at a moment. Return False if it ended before."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            run(folder, program, Bomb(moment), **options)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the run failed without being killed"
    return os.WIFSIGNALED(status)


def settled(folder: Path) -> dict[str, Any]:
    """Check that cloud and state agree, and return both without the random parts of names."""
    site = Site(folder, FakeProvider(FakeCloud(folder / "cloud.json")))
    contents, things = site.state(), site.cloud.things()
    managed = {known.id for known in contents.resources.values() if known.custom and not known.recorded}
    retained = {key for key, thing in things.items() if thing["name"].startswith("r-")}
    assert managed | retained == set(things), "the cloud and the state hold different resources"
    assert (contents.doomed, contents.pending) == ({}, {})
    resources = {
        urn: {
            "id": known.id,
            "inputs": known.inputs.values,
            "outputs": known.outputs.values,
            "secrets": sorted([*known.inputs.secrets, *known.outputs.secrets]),
            "needs": sorted(known.needs()),
            "recorded": known.recorded,
        }
        for urn, known in contents.resources.items()
    }
    found = {"cloud": sorted(things.items()), "state": sorted(resources.items())}
    steady: dict[str, Any] = json.loads(re.sub(r"-[0-9a-f]{8}\b", "-*", json.dumps(found)))
    return steady


@pytest.mark.parametrize("change", ["from nothing", "to the second", "to nothing"])
def test_the_next_run_completes_a_run_killed_at_any_moment(tmp_path: Path, change: str) -> None:
    before, program = {
        "from nothing": ("", START),
        "to the second": (FIRST, SECOND),
        "to nothing": (START, ""),
    }[change]
    origin = tmp_path / "origin"
    origin.mkdir()
    run(origin, before, Bomb(0))

    expected = tmp_path / "expected"
    shutil.copytree(origin, expected)
    run(expected, program, counter := Bomb(0))
    assert {"before write", "after write"} <= set(counter.moments)
    want = settled(expected)

    # Steps run in parallel and share writes, so the order and number of moments vary.
    moment, survived = 0, 0
    while survived < 2:
        moment += 1
        folder = tmp_path / f"at-{moment}"
        shutil.copytree(origin, folder)
        survived += not killed_at(folder, program, moment)
        run(folder, program, Bomb(0))
        assert settled(folder) == want, f"killed at moment {moment} of about {counter.moments}"
        if moment % 5 == 0:
            run(folder, program, idle := Bomb(0))
            assert idle.moments == [], "a third run still had steps"
        shutil.rmtree(folder)
    assert moment >= 10


def test_a_run_killed_repeatedly_completes_in_the_end(tmp_path: Path) -> None:
    folder, expected = tmp_path / "folder", tmp_path / "expected"
    for each in (folder, expected):
        each.mkdir()
        run(each, START, Bomb(0))
    run(expected, FIRST, Bomb(0))
    rounds = 0
    while killed_at(folder, FIRST, 9, parallel=1):
        rounds += 1
        assert rounds < 40, "no progress"
    assert rounds > 2
    assert settled(folder) == settled(expected)
