"""Delays of the realistic laptop: the list, settings, and the table in the documentation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.components.endpoint import PROGRESS_SECONDS
from laptop import delays
from laptop.delays import Delays
from pipelines.cluster.load_balancer import DEADLINE_SECONDS
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.deploy import ROLLOUT_ALLOWANCE_SECONDS
from pipelines.promotion.traffic import MOVE_SECONDS
from tests.sample_project import ROOT

PAGE = Path(__file__).parents[1] / "docs" / "realistic.md"


def test_make_makes_the_journeys_realistic() -> None:
    """The tests remove the variables of this project from their environment before they read any other."""
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "laptop/tests/journeys" in line]
    name = line.strip().removeprefix("@").partition("=")[0]
    code = "import laptop.tests.conftest\nfrom laptop.tests.journeys.laptop_of_journeys import SCALE\nprint(SCALE)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, name: "50", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "50.0\n"


def test_the_documentation_lists_every_delay_with_its_default_and_source() -> None:
    rows = [
        f"| `{one.name}` | {one.seconds:g} s | {one.models} | {one.documented} ([source]({one.source})) |"
        for one in delays.catalogue()
    ]
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("| `")] == rows


def test_every_delay_has_a_name_a_length_and_a_source() -> None:
    names = [one.name for one in delays.catalogue()]
    assert len(set(names)) == len(names)
    for one in delays.catalogue():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", one.name)
        assert one.seconds > 0
        assert one.source.startswith("https://")


def test_time_scale_and_factor_apply_to_every_delay() -> None:
    ordinary, quick = delays.realistic(), delays.realistic(time_scale=20, factor=2)
    assert {name: seconds / 10 for name, seconds in ordinary.seconds.items()} == pytest.approx(dict(quick.seconds))


DEADLINES = {
    "the controller, for pods of a first release": (
        PROGRESS_SECONDS,
        ("node", "image-pull", "load-balancer", "target-health"),
    ),
    "a deployment, for its rollout": (
        ROLLOUT_ALLOWANCE_SECONDS,
        ("node", "image-pull", "load-balancer", "target-health", "weights"),
    ),
    "a rollback, for pods on a new node": (MOVE_SECONDS, ("node", "image-pull", "target-health", "weights")),
    "a verification, for a load balancer": (
        DEADLINE_SECONDS,
        ("load-balancer", "dns", "dns-negative-cache", "target-health", "weights"),
    ),
}
"""What is waited for → its deadline in seconds, and the delays that can follow one another until then."""


@pytest.mark.parametrize("who", DEADLINES)
def test_the_product_waits_for_twice_the_delays(who: str) -> None:
    deadline, names = DEADLINES[who]
    assert sum(2 * delays.realistic()[name] for name in names) < deadline


def test_the_controller_gives_up_on_pods_before_the_deployment_does() -> None:
    """Its reason, a failed rollout, is in the error and in the ledger."""
    assert PROGRESS_SECONDS < ROLLOUT_ALLOWANCE_SECONDS
    assert PROGRESS_SECONDS < MOVE_SECONDS


def test_a_setting_is_in_seconds_before_the_time_scale_and_the_last_one_counts() -> None:
    found = delays.realistic(["load-balancer=10", "load-balancer=30", "dns=0"], time_scale=10)
    assert (found["load-balancer"], found["dns"], found["target-health"]) == (3.0, 0.0, 1.5)


def test_settings_come_from_the_environment() -> None:
    assert delays.from_environment({delays.VARIABLE: "dns=5, node=1,"}) == ["dns=5", "node=1"]
    assert delays.from_environment({}) == []


@pytest.mark.parametrize("setting", ["dns", "dns=", "dns=soon", "dns=-1", "dns=inf", "dns=nan"])
def test_a_setting_that_is_not_seconds_is_refused(setting: str) -> None:
    with pytest.raises(MlopsError, match="delay dns: expected seconds") as refused:
        delays.realistic([setting])
    assert refused.value.fix == "give a number: --delay dns=30."


def test_an_unknown_delay_is_refused_with_the_known_ones() -> None:
    with pytest.raises(MlopsError, match="delay 'dsn': expected one of load-balancer, dns"):
        delays.realistic(["dsn=3"])
    with pytest.raises(KeyError):
        delays.NONE["dsn"]


def test_an_ordinary_laptop_has_no_delays(tmp_path: Path) -> None:
    assert not Delays.read(tmp_path)
    assert Delays.read(tmp_path)["node"] == 0.0


def test_delays_are_found_in_the_home(tmp_path: Path) -> None:
    delays.realistic(["node=7"]).write(tmp_path)
    assert Delays.read(tmp_path)
    assert Delays.read(tmp_path)["node"] == 7.0
