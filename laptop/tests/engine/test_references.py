from __future__ import annotations

import pytest

from laptop.engine.deployment import DeploymentError, stack_outputs
from laptop.tests.engine.conftest import Site

READER = """
other = pulumi.StackReference("{}")
pulumi.export("arn", other.get_output("arn"))
pulumi.export("missing", other.get_output("missing").apply(lambda found: found or "-"))
pulumi.export("pin", other.get_output("pin"))
"""
NAME = "organization/shop/base"


@pytest.fixture
def base(site: Site) -> Site:
    site.write(
        'pulumi.export("arn", Thing("a").arn)\npulumi.export("pin", Output.secret("hunter2hunter2"))', stack="base"
    )
    site.deployment("base").up()
    return site


def test_a_stack_reads_the_outputs_of_another_and_keeps_secrets_secret(base: Site) -> None:
    base.write(READER.format(NAME))
    for result in (base.deployment().preview(), base.deployment().up()):
        assert result.outputs["arn"].startswith("arn:id-a")
        assert result.outputs["missing"] == "-"
        assert result.outputs["pin"] == "[secret]"
    assert stack_outputs(base.home, "dev", reveal=True)["pin"] == "hunter2hunter2"
    assert "hunter2" not in (base.home / "state" / "dev.json").read_text()
    assert base.deployment().up().changes == ()


def test_a_stack_sees_the_current_outputs_of_another(base: Site) -> None:
    base.write(READER.format(NAME))
    base.deployment().up()
    base.write('pulumi.export("arn", "moved")', stack="base")
    base.deployment("base").up()
    base.write(READER.format(NAME))
    assert base.deployment().up().outputs["arn"] == "moved"


@pytest.mark.parametrize("name", ["organization/shop/nowhere", "organization/other/base", "someone/shop/base", "base"])
def test_an_unknown_stack_is_refused(base: Site, name: str) -> None:
    base.write(READER.format(name))
    with pytest.raises(DeploymentError, match=rf"unknown stack `{name}`(?s:.*)organization/<project>/<stack>"):
        base.deployment().up()


def test_a_missing_required_output_is_an_error_of_the_program(base: Site) -> None:
    base.write(f'pulumi.export("x", pulumi.StackReference("{NAME}").require_output("nope"))')
    with pytest.raises(Exception, match=r"KeyError: 'nope'"):
        base.deployment().up()
