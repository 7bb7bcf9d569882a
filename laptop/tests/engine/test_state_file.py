from __future__ import annotations

import json
import stat
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from laptop.engine.journal import Journal
from laptop.engine.resources import Contents, Pending, ResourceState
from laptop.engine.sealing import KEY_FILE, Seal
from laptop.engine.state_file import load, state_path
from laptop.engine.values import Properties
from pipelines.declarations import atomic_files as files
from pipelines.declarations.errors import MlopsError

URN = "urn:pulumi:dev::shop::fake:index:Thing::a"


def new_journal(folder: Path, **more: object) -> Journal:
    return Journal(Contents("shop", "dev", "inc-1"), folder / "dev.json", Seal(folder))


def read(folder: Path, incarnation: str = "inc-1") -> Contents:
    return load(folder / "dev.json", "shop", "dev", incarnation, Seal(folder))


def thing(urn: str = URN, **more: Any) -> ResourceState:
    values = {"plain": [1, {"deep": "pw"}], "top": "secret-text"}
    secrets = frozenset([("plain", 1, "deep"), ("top",)])
    known = ResourceState(
        urn=urn,
        id="i-1",
        inputs=Properties(values, secrets),
        outputs=Properties({"arn": "x"}),
        dependencies=("urn:pulumi:dev::shop::a:b:C::d",),
        property_dependencies=(("plain", ("urn:pulumi:dev::shop::a:b:C::d",)),),
        protect=True,
        secret_names=("arn",),
    )
    return replace(known, **more)


def fill(target: Journal) -> None:
    def mutate(contents: Contents) -> None:
        contents.resources[URN] = thing()
        contents.doomed[(URN, "i-0")] = thing(id="i-0")
        pending = Pending("create", thing(id="", urn=URN + "2"))
        contents.pending[pending.key] = pending

    target.change(mutate)


def test_the_state_round_trips_through_its_file(tmp_path: Path) -> None:
    written = new_journal(tmp_path)
    fill(written)
    assert read(tmp_path) == written.contents


def test_secrets_are_encrypted_and_the_files_are_private(tmp_path: Path) -> None:
    fill(new_journal(tmp_path))
    text = (tmp_path / "dev.json").read_text()
    assert "secret-text" not in text
    assert '"pw"' not in text
    for name in ("dev.json", KEY_FILE):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev.json", KEY_FILE]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"version": "1"}', '{"version": 1}', "\x00\xff"])
def test_a_damaged_file_is_refused_and_left_unchanged(tmp_path: Path, content: str) -> None:
    file = tmp_path / "dev.json"
    file.write_text(content, encoding="latin-1")
    before = file.read_bytes()
    with pytest.raises(MlopsError, match="is damaged"):
        read(tmp_path)
    assert file.read_bytes() == before


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    fill(new_journal(tmp_path))
    file = tmp_path / "dev.json"
    whole = file.read_bytes()
    for length in range(0, len(whole.rstrip()) - 1, 37):
        file.write_bytes(whole[:length])
        with pytest.raises(MlopsError, match="is damaged"):
            read(tmp_path)


def test_a_resource_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    fill(new_journal(tmp_path))
    file = tmp_path / "dev.json"
    document = json.loads(file.read_text())
    document["resources"][0]["surprise"] = 1
    file.write_text(json.dumps(document))
    with pytest.raises(MlopsError, match="surprise"):
        read(tmp_path)


def test_the_state_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text('{"version": 99}')
    with pytest.raises(MlopsError, match=r"expected version 2 or lower, found 99(?s:.*)fix: use the release"):
        read(tmp_path)


def test_the_state_of_another_incarnation_is_refused_unless_it_is_empty(tmp_path: Path) -> None:
    target = new_journal(tmp_path)
    target.change(lambda contents: None)
    assert read(tmp_path, "inc-2").incarnation == "inc-2"
    fill(target)
    with pytest.raises(MlopsError, match=r"another account: expected `inc-2`(?s:.*)found `inc-1`"):
        read(tmp_path, "inc-2")
    assert read(tmp_path, "").incarnation == "inc-1"


def test_the_state_of_another_project_is_refused(tmp_path: Path) -> None:
    fill(new_journal(tmp_path))
    with pytest.raises(MlopsError, match="of project `other`, found stack `dev` of project `shop`"):
        load(tmp_path / "dev.json", "other", "dev", "", Seal(tmp_path))


def test_a_state_with_secrets_needs_its_own_key(tmp_path: Path) -> None:
    fill(new_journal(tmp_path))
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(MlopsError, match=r"secrets\.key does not exist"):
        read(tmp_path)
    Seal(tmp_path).seal("makes another key")
    with pytest.raises(MlopsError, match="was not encrypted with"):
        read(tmp_path)
    (tmp_path / KEY_FILE).write_text("nonsense")
    with pytest.raises(MlopsError, match="is not a valid key"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 101, "a b", "-\n"])
def test_a_stack_name_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MlopsError, match="is not a valid stack name"):
        state_path(tmp_path, name)


def test_changes_during_a_write_share_the_next_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    first_is_in, go_on = threading.Event(), threading.Event()

    def slow(path: Path, data: bytes) -> None:
        writes.append(data)
        if len(writes) == 1:
            first_is_in.set()
            assert go_on.wait(10)

    monkeypatch.setattr(files, "write_atomically", slow)
    target = new_journal(tmp_path)

    def add(number: int) -> None:
        known = thing(urn=f"{URN}{number}", inputs=Properties({}))
        target.change(lambda contents: contents.resources.__setitem__(known.urn, known))

    threads = [threading.Thread(target=add, args=(0,))]
    threads[0].start()
    assert first_is_in.wait(10)
    threads += [threading.Thread(target=add, args=(number,)) for number in range(1, 9)]
    for thread in threads[1:]:
        thread.start()
    while target.changes < 9:
        pass
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(writes) == 2
    assert all(f"Thing::a{number}".encode() in writes[-1] for number in range(9))
