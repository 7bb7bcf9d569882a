from __future__ import annotations

from pathlib import Path

import pytest

from laptop.engine.deployment import DeploymentError, stack_outputs
from laptop.engine.display import show_step
from laptop.engine.project_file import load_project, load_stack
from laptop.tests.engine.conftest import Site
from pipelines.declarations.errors import MlopsError

SECRET = "hunter2-hunter2"
PROGRAM = """
pin = Output.secret("hunter2-hunter2{more}")
a = Thing("a", pin=pin, url=Output.concat("postgres://", pin), nested={{"deep": [1, pin]}})
b = Thing("b", copied=a.arn, pin=a.pin if hasattr(a, "pin") else pin)
Paper("p", pin=pin)
Thing("named", token="t0ken-plain", opts=Opts(additional_secret_outputs=["token"]))
pulumi.export("pin", pin)
pulumi.export("around", {{"pin": pin, "plain": 1}})
"""


def test_a_secret_reaches_the_provider_in_plain_text_but_never_the_disk_or_the_screen(site: Site) -> None:
    results = [site.up(PROGRAM.format(more="")), site.preview(), site.up(PROGRAM.format(more="3"))]
    thing = next(thing for thing in site.cloud.things().values() if thing["name"].startswith("a-"))
    assert thing["pin"] == SECRET + "3"
    assert thing["nested"] == {"deep": [1, SECRET + "3"]}
    for file in (site.home / "state").iterdir():
        assert SECRET not in file.read_text()
    for result in results:
        shown = "\n".join(line for step in result.steps for line in show_step(step))
        assert SECRET not in shown + str(result.outputs)
        assert result.outputs["pin"] == "[secret]"
    assert '~ pin: "[secret]" => "[secret]"' in shown


@pytest.mark.parametrize(
    "program",
    [
        'Thing("a", fail=Output.secret("hunter2-hunter2"))',
        'Thing("a", fail=Output.concat("password=", Output.secret("hunter2-hunter2"), " is too short"))',
        'Thing("a", fail=Output.secret({"deep": ["hunter2-hunter2"]}))',
        'Thing("a", fail=Output.secret(\'say "hunter2-hunter2"\'))',
    ],
)
def test_a_secret_that_a_provider_quotes_in_its_error_is_masked(site: Site, program: str) -> None:
    with pytest.raises(DeploymentError) as failure:
        site.up(program)
    assert "the cloud refuses: " in str(failure.value)
    assert "[secret]" in str(failure.value)
    shown = "\n".join(line for step in failure.value.result.steps for line in show_step(step))
    assert "hunter2" not in str(failure.value) + shown


def test_a_secret_of_the_state_is_masked_in_the_error_of_a_later_update(site: Site) -> None:
    site.up('Thing("a", pin=Output.secret("hunter2-hunter2"))')
    with pytest.raises(DeploymentError) as failure:
        site.up('Thing("a", fail="old pin was hunter2-hunter2")')
    assert "the cloud refuses: old pin was [secret]" in str(failure.value)


def test_secret_stack_outputs_are_masked_unless_revealed(site: Site) -> None:
    site.up(PROGRAM.format(more=""))
    assert stack_outputs(site.home, "dev")["pin"] == "[secret]"
    assert stack_outputs(site.home, "dev", reveal=True)["around"]["pin"] == SECRET


def test_outputs_that_the_program_declares_secret_stay_encrypted(site: Site) -> None:
    program = 'Thing("named", token="t0ken-plain", tags={"x": %d}, opts=Opts(additional_secret_outputs=["token"]))'
    site.up(program % 1)
    site.up(program % 2)
    known = next(known for urn, known in site.state().resources.items() if urn.endswith("::named"))
    assert known.outputs.secrets == {("token",)}


def test_a_value_that_becomes_secret_is_encrypted_without_an_update(site: Site) -> None:
    site.up('Thing("a", pin="hunter2-hunter2")')
    assert SECRET in (site.home / "state" / "dev.json").read_text()
    site.up('Thing("a", pin=Output.secret("hunter2-hunter2"))')
    assert site.verbs() == []
    assert SECRET not in (site.home / "state" / "dev.json").read_text()


@pytest.mark.parametrize(
    ("config", "where"),
    [("pin: {secure: v1:abc}", "pin"), ("shop:box: {list: [1, {secure: v1:abc}]}", r"shop:box.list\[1\]")],
)
def test_a_secure_configuration_value_is_refused(site: Site, config: str, where: str) -> None:
    site.write("", f"secretsprovider: awskms://alias/x\nconfig: {{{config}}}")
    with pytest.raises(MlopsError, match=f"Pulumi.dev.yaml: `{where}` is a secure value, which the laptop cannot"):
        site.deployment().up()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("runtime: python\n", "expected the name of the project, found nothing"),
        ("name: shop\nruntime: go\n", r"Pulumi.yaml:2: runtime: expected python, found 'go'"),
        ("name: shop\nruntime: python\nmain: elsewhere\n", r"Pulumi.yaml:3: main: expected a folder"),
        ("- a\n", "expected keys and values, found list"),
        ("a: [", "expected a YAML document"),
    ],
)
def test_an_invalid_project_file_is_refused_with_its_line(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "Pulumi.yaml").write_text(content)
    with pytest.raises(MlopsError, match=expected):
        load_project(tmp_path)


def test_project_defaults_apply_unless_the_stack_overrides_them(tmp_path: Path) -> None:
    (tmp_path / "__main__.py").write_text("")
    (tmp_path / "Pulumi.yaml").write_text(
        "name: shop\nruntime: {name: python}\n"
        "config: {a: 1, b: {type: string, default: x}, c: {value: [1]}, d: {type: string}}\n"
    )
    (tmp_path / "Pulumi.dev.yaml").write_text("config: {a: 2}")
    values = load_stack(load_project(tmp_path), "dev").values
    assert values == {"shop:a": "2", "shop:b": "x", "shop:c": "[1]"}


def test_an_old_secret_kept_by_ignore_changes_stays_encrypted(site: Site) -> None:
    program = 'Thing("a", pin={}, size={}, opts=Opts(ignore_changes=["pin"]))'
    site.up(program.format('Output.secret("hunter2-hunter2")', 1))
    site.up(program.format('"plain"', 2))
    (thing,) = site.cloud.things().values()
    assert (thing["pin"], thing["size"]) == (SECRET, 2)
    assert SECRET not in (site.home / "state" / "dev.json").read_text()
