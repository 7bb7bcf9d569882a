from __future__ import annotations

import pytest

from infra.local.engine.deployment import DeploymentError
from tests.infra.local.engine.conftest import Site, kinds

PROGRAM = (
    'a = Thing("a", size=1, pin=Output.secret("hunter2hunter2"))\nThing("b", target=a.arn)\nPaper("p")\nGroup("g")'
)


def drift(site: Site, logical: str, **values: object) -> None:
    with site.cloud.open() as things:
        for key in [key for key, thing in things.items() if thing["name"].startswith(f"{logical}-")]:
            if values:
                things[key].update(values)
            else:
                del things[key]


def test_a_refresh_without_drift_changes_nothing(site: Site) -> None:
    site.up(PROGRAM)
    before = (site.home / "state" / "dev.json").read_bytes()
    result = site.deployment().refresh()
    assert result.counts == {"same": 2}
    assert (site.home / "state" / "dev.json").read_bytes() == before


def test_a_refresh_finds_drift_and_the_next_up_puts_it_right(site: Site) -> None:
    site.up(PROGRAM)
    drift(site, "a", size=9, pin="somebody-elses")
    assert site.up().changes == ()
    result = site.deployment().refresh()
    (step,) = result.changes
    assert (step.name, step.kind.value) == ("a", "drifted")
    assert [(c.path, c.old, c.new) for c in step.changes] == [("pin", "[secret]", "[secret]"), ("size", 1, 9)]
    assert "somebody-elses" not in (site.home / "state" / "dev.json").read_text()
    assert kinds(site.up())["a"] == "update"
    thing = next(thing for thing in site.cloud.things().values() if thing["name"].startswith("a-"))
    assert (thing["size"], thing["pin"]) == (1, "hunter2hunter2")


def test_a_refresh_forgets_what_is_gone_and_the_next_up_makes_it_again(site: Site) -> None:
    site.up(PROGRAM)
    drift(site, "b")
    assert kinds(site.deployment().refresh()) == {"a": "same", "b": "gone"}
    assert kinds(site.up())["b"] == "create"
    assert site.names() == ["a", "b"]


def test_a_resource_that_cannot_be_read_is_a_failure_and_stays_known(site: Site) -> None:
    site.up('Thing("a", unreadable=True)\nThing("b")')
    drift(site, "b")
    with pytest.raises(DeploymentError, match=r"Thing::a\n  the cloud does not answer"):
        site.deployment().refresh()
    assert sorted(urn.rpartition("::")[2] for urn in site.state().resources) == ["a", "shop-dev"]


def test_destroy_deletes_everything_in_order_and_a_second_one_nothing(site: Site) -> None:
    site.up(PROGRAM)
    site.provider.calls.clear()
    result = site.deployment().destroy()
    assert site.verbs() == [("delete", "b"), ("delete", "a")]
    assert site.cloud.things() == {}
    assert site.state().resources == {}
    assert result.outputs == {}
    assert site.deployment().destroy().steps == ()
    assert len(site.up().changes) == 5
