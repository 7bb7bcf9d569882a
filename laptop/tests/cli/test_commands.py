"""The commands that the laptop adds to `mlops`."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from laptop.cli.github import check_user
from laptop.tests.github.sample_repository import hub_with
from pipelines.cli.commands import PLUGINS, Verb, first_line
from pipelines.cli.environments import IMAGES_RENAMED
from pipelines.cli.main import RENAMED, mlops
from pipelines.declarations.errors import MlopsError
from tests.pipelines.cli.command_tree import command_tree
from tests.pipelines.cli.test_main import run

pytestmark = pytest.mark.slow

VERBS: dict[str, Verb] = {
    entry.name: entry.load() for entry in entry_points(group=PLUGINS) if entry.module.startswith("laptop.")
}
ALL = command_tree(VERBS)


def test_help_lists_the_commands_of_the_laptop_in_their_own_section() -> None:
    text = CliRunner().invoke(mlops, ["--help"]).output
    section = re.split(r"╭─ \w+ ─+╮", text[text.index("╭─ Laptop") :])[1]
    assert set(VERBS) == {"demo", "github", "laptop"}
    for name in ("demo", "laptop"):
        assert re.search(rf"│ {name} +{re.escape(VERBS[name].help)} +│", section), name


def test_the_github_of_the_laptop_adds_to_the_group_of_the_product() -> None:
    text = CliRunner().invoke(mlops, ["github", "--help"]).output
    for name in ("setup", "create", "serve", "clone", "env"):
        assert re.search(rf"│ {name} +\S", text), name


@pytest.mark.parametrize(("name", "verb"), VERBS.items(), ids=list(VERBS))
def test_the_listed_summary_is_the_first_line_of_the_commands_help(name: str, verb: Verb) -> None:
    command = verb.load()
    assert (command.name, first_line(command)) == (name, verb.help)


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_prints_its_help(path: tuple[str, ...], command: click.Command) -> None:
    done = CliRunner().invoke(mlops, [*path, "--help"])
    assert done.exit_code == 0, done.output
    assert f"Usage: mlops {' '.join(path)} " in done.output


@pytest.mark.parametrize(
    "now", [n for n in (*RENAMED.values(), *IMAGES_RENAMED.values()) if n.startswith("mlops laptop")]
)
def test_every_former_name_of_a_laptop_command_suggests_one_that_exists(now: str) -> None:
    assert tuple(now.split()[1:]) in [path for path, _ in ALL]


@pytest.mark.parametrize("verb", ["up", "preview", "deploy", "outputs"])
def test_a_command_says_how_to_start_the_laptop_when_it_is_not_running(verb: str, tmp_path: Path) -> None:
    done = run(verb, "--env", "dev", "--target", "laptop", environ={"MLOPS_HOME": str(tmp_path)})
    assert done.returncode == 1
    assert "the laptop is not running" in done.stderr
    assert "mlops laptop start" in done.stderr


def test_stopping_says_whether_a_laptop_was_running(tmp_path: Path) -> None:
    done = run("laptop", "stop", environ={"MLOPS_HOME": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, f"No laptop was running (looked in {tmp_path}).\n")


def test_only_users_of_the_hosted_repository_can_work_in_it(tmp_path: Path) -> None:
    hub = hub_with(tmp_path, {"README": "x"})
    check_user(hub, "maria")
    with pytest.raises(MlopsError) as caught:
        check_user(hub, "bob")
    assert (caught.value.what, caught.value.fix) == (
        "--as: expected a user of the hosted repository, found 'bob'",
        "--as maria or --as noah",
    )
