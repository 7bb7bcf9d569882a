from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import pytest

from laptop.engine.deployment import DeploymentError
from laptop.engine.program import ProgramError
from laptop.tests.engine.conftest import PREAMBLE, Site
from pipelines.declarations.errors import MlopsError

pytestmark = pytest.mark.slow

LINES = PREAMBLE.count("\n")


def test_an_exception_is_shown_with_the_programs_own_lines_only(site: Site) -> None:
    site.write("Thing('a')\ndef fails():\n    raise ValueError('no such region')\nfails()\n")
    with pytest.raises(ProgramError) as failure:
        site.deployment().up()
    assert str(failure.value).splitlines() == [
        "the program failed: ValueError: no such region",
        f'  File "infra/__main__.py", line {LINES + 4}, in <module>',
        "    fails()",
        f'  File "infra/__main__.py", line {LINES + 3}, in fails',
        "    raise ValueError('no such region')",
    ]
    assert not site.cloud.things()


def test_an_exception_in_an_output_callback_is_shown_with_its_line(site: Site) -> None:
    with pytest.raises(ProgramError, match=rf"ZeroDivisionError(?s:.*)line {LINES + 2}, in <lambda>"):
        site.up("\nThing('a', size=0).size.apply(lambda size: 1 / size)")


def test_a_syntax_error_names_its_line(site: Site) -> None:
    with pytest.raises(ProgramError, match=rf"__main__.py\", line {LINES + 2}(?s:.*)SyntaxError"):
        site.up("\nThing('a'")


@pytest.mark.parametrize(
    "program",
    [
        "raise pulumi.RunError({text!r})",
        "def refuse(size):\n    raise pulumi.RunError({text!r})\nThing('a', size=1).size.apply(refuse)",
    ],
    ids=["in the program", "in an output callback"],
)
def test_a_run_error_is_shown_as_it_is(site: Site, program: str) -> None:
    text = "the model is invalid\n  fix: retrain"
    with pytest.raises(ProgramError) as failure:
        site.up(program.format(text=text))
    assert str(failure.value) == text


def test_an_error_that_pulumi_would_show_with_a_traceback_is_shown_with_its_line(site: Site) -> None:
    with pytest.raises(ProgramError, match=rf"MlopsError: wrong(?s:.*)line {LINES + 2}, in <module>"):
        site.up("from pipelines.declarations.errors import MlopsError\nraise MlopsError('wrong')")


def test_a_program_that_exits_or_logs_an_error_fails(site: Site) -> None:
    with pytest.raises(ProgramError, match="SystemExit"):
        site.up("import sys; sys.exit(3)")
    with pytest.raises(ProgramError, match="logged 1 error"):
        site.up("pulumi.log.error('the key is too short'); pulumi.log.info('by the way'); pulumi.log.debug('hush')")
    assert site.progress.notices == ["error: the key is too short", "by the way"]


def test_steps_before_a_program_failure_are_kept(site: Site) -> None:
    program = "a = Thing('a')\na.arn.apply(lambda arn: 1 / 0)"
    with pytest.raises(ProgramError):
        site.up(program)
    assert site.names() == ["a"]
    assert any(urn.endswith("Thing::a") for urn in site.state().resources)


def test_a_failing_function_call_is_an_exception_at_the_programs_line(site: Site) -> None:
    with pytest.raises(ProgramError, match=rf"there is no function fake:index:nope(?s:.*)line {LINES + 2}"):
        site.up("\npulumi.runtime.invoke('fake:index:nope', {})")


def test_the_program_sees_its_names_its_configuration_and_the_preview_flag(site: Site) -> None:
    config = """
config:
  size: 3
  enabled: true
  shop:owner: ann
  other:key: text
  list: [1, {a: b}]
  object: {nested: {deep: 1.5}}
  nothing: null
"""
    program = """
        import os
        config = pulumi.Config()
        pulumi.export("found", {
            "size": config.require_int("size"), "enabled": config.require_bool("enabled"), "owner": config.get("owner"),
            "list": config.require_object("list"), "object": config.require_object("object"),
            "other": pulumi.Config("other").get("key"), "absent": config.get("absent") or "-",
            "nothing": config.get("nothing"),
            "names": [pulumi.get_organization(), pulumi.get_project(), pulumi.get_stack()],
            "preview": pulumi.runtime.is_dry_run(), "cwd": os.path.basename(os.getcwd()),
        })
    """
    site.write(program, config)
    expected = {
        "size": 3,
        "enabled": True,
        "owner": "ann",
        "list": [1, {"a": "b"}],
        "object": {"nested": {"deep": 1.5}},
        "other": "text",
        "absent": "-",
        "nothing": "",
        "names": ["organization", "shop", "dev"],
        "preview": True,
        "cwd": "infra",
    }
    assert site.deployment().preview().outputs["found"] == expected
    assert site.deployment().up().outputs["found"] == {**expected, "preview": False}


def test_a_program_leaves_no_trace_in_the_process(site: Site) -> None:
    program = "import shelf\npulumi.export('shelf', shelf.name)"
    before = (Path.cwd(), list(sys.path))
    for stack in ("dev", "staging", "dev"):
        site.write(program, f"config: {{owner: {stack}-owner}}", stack)
        (site.root / "infra" / "shelf.py").write_text("import pulumi\nname = pulumi.Config().require('owner')")
        assert site.deployment(stack).up().outputs == {"shelf": f"{stack}-owner"}
        assert (Path.cwd(), sys.path) == before
        assert "shelf" not in sys.modules


def test_an_asynchronous_program_is_awaited(site: Site) -> None:
    program = """
        import asyncio
        async def main():
            await asyncio.sleep(0)
            return {"arn": Thing("a").arn}
        pulumi.run(main)
    """
    (arn,) = site.up(program).outputs.values()
    assert arn.startswith("arn:id-a")


def test_an_unknown_stack_is_refused_with_the_known_ones(site: Site) -> None:
    site.write("")
    site.write("", stack="prod")
    with pytest.raises(MlopsError, match=r"no stack `pord`(?s:.*)use one of: dev, prod"):
        site.deployment("pord").up()


def test_an_interrupted_up_does_not_wait_for_an_output_that_never_has_a_value(site: Site) -> None:
    program = """
    import asyncio, signal
    Thing("a")
    Thing("b", name=Output.from_input(asyncio.get_event_loop().create_future()))
    signal.raise_signal(signal.SIGINT)
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            site.up(program)
    finally:
        signal.signal(signal.SIGINT, before)
    site.up("Thing('a')")
    assert site.names() == ["a"]


def test_an_interrupted_up_finishes_running_steps_and_can_be_continued(site: Site) -> None:
    def interrupt(moment: str, what: str) -> None:
        if (moment, what) == ("before", "create a"):
            # Sent to the waiting thread, as from a terminal: it must not sleep until the next step has ended.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    site.provider._hook = interrupt
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            site.up("a = Thing('a')\nb = Thing('b', target=a.arn)\nThing('c', target=b.arn)")
    finally:
        signal.signal(signal.SIGINT, before)
    assert site.names() in (["a"], ["a", "b"])
    assert site.state().pending == {}
    site.provider._hook = lambda moment, what: None
    site.up()
    assert site.names() == ["a", "b", "c"]


def test_a_resource_read_by_its_id_is_not_managed(site: Site) -> None:
    with site.cloud.open() as things:
        things["id-lake"] = {"name": "lake", "arn": "arn:id-lake"}
    program = "there = Thing('there', opts=Opts(id='{}'))\npulumi.export('arn', there.arn)"
    assert site.up(program.format("id-lake")).outputs == {"arn": "arn:id-lake"}
    site.up("")
    site.deployment().destroy()
    assert list(site.cloud.things()) == ["id-lake"]
    with pytest.raises(DeploymentError, match="no fake:index:Thing with the id `id-sea`"):
        site.up(program.format("id-sea"))


def test_messages_of_the_program_are_shown_once(site: Site) -> None:
    program = "pulumi.log.warn('no image is pinned')\nThing('a')"
    site.up(program)
    assert site.progress.notices == ["warning: no image is pinned"]
    site.up()
    assert site.progress.notices == ["warning: no image is pinned"] * 2
    site.progress.notices.clear()
    with pytest.raises(DeploymentError):
        site.up(program + "\nThing('b', bad='x')")
    assert site.progress.notices == ["warning: no image is pinned"]
