from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from laptop.engine.configuration import PASSPHRASE, load_project, load_stack
from laptop.engine.deployment import stack_outputs
from laptop.engine.display import show_step
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


def test_a_secret_reaches_the_provider_plain_and_the_disk_and_the_screen_never(site: Site) -> None:
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


def test_the_secret_outputs_of_a_stack_are_masked_unless_asked_for(site: Site) -> None:
    site.up(PROGRAM.format(more=""))
    assert stack_outputs(site.home, "dev")["pin"] == "[secret]"
    assert stack_outputs(site.home, "dev", reveal=True)["around"]["pin"] == SECRET


def test_outputs_that_the_program_declares_secret_are_sealed_and_stay_so(site: Site) -> None:
    program = 'Thing("named", token="t0ken-plain", tags={"x": %d}, opts=Opts(additional_secret_outputs=["token"]))'
    site.up(program % 1)
    site.up(program % 2)
    known = next(known for urn, known in site.state().resources.items() if urn.endswith("::named"))
    assert known.outputs.secrets == {("token",)}


def test_a_value_that_becomes_secret_is_sealed_without_touching_the_resource(site: Site) -> None:
    site.up('Thing("a", pin="hunter2-hunter2")')
    assert SECRET in (site.home / "state" / "dev.json").read_text()
    site.up('Thing("a", pin=Output.secret("hunter2-hunter2"))')
    assert site.verbs() == []
    assert SECRET not in (site.home / "state" / "dev.json").read_text()


def sealed(text: str, passphrase: str, salt: bytes) -> str:
    """As `pulumi config set --secret` with a passphrase does (AES-256-GCM, PBKDF2)."""
    key = hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt, 1_000_000, 32)
    nonce = os.urandom(12)
    ciphertext = AESGCM(key).encrypt(nonce, text.encode(), None)
    return f"v1:{base64.b64encode(nonce).decode()}:{base64.b64encode(ciphertext).decode()}"


def test_secure_configuration_is_opened_with_the_passphrase_and_refused_without(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    salt = b"saltsalt"
    config = f"""
encryptionsalt: v1:{base64.b64encode(salt).decode()}:v1:x:y
config:
  shop:pin: {{secure: "{sealed(SECRET, "open sesame", salt)}"}}
  shop:box: {{list: [{{secure: "{sealed("inner", "open sesame", salt)}"}}]}}
"""
    site.write('pulumi.export("pin", pulumi.Config().require_secret("pin"))', config)
    monkeypatch.delenv(PASSPHRASE, raising=False)
    with pytest.raises(MlopsError, match=rf"Pulumi.dev.yaml: `shop:pin` is a secure value(?s:.*)set {PASSPHRASE}"):
        site.deployment().up()
    monkeypatch.setenv(PASSPHRASE, "wrong")
    with pytest.raises(MlopsError, match="cannot be opened with this passphrase"):
        site.deployment().up()
    monkeypatch.setenv(PASSPHRASE, "open sesame")
    assert site.deployment().up().outputs == {"pin": "[secret]"}
    assert stack_outputs(site.home, "dev", reveal=True) == {"pin": SECRET}
    configuration = load_stack(load_project(site.root), "dev")
    assert configuration.values["shop:box"] == '{"list":["inner"]}'
    assert configuration.secret_keys == ("shop:pin", "shop:box")


def test_secure_configuration_of_another_secrets_provider_is_refused(site: Site) -> None:
    site.write("", "secretsprovider: awskms://alias/x\nconfig: {pin: {secure: abc}}")
    with pytest.raises(MlopsError, match="sealed by `awskms://alias/x`, which the local target cannot reach"):
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
def test_a_wrong_project_file_is_refused_with_its_line(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "Pulumi.yaml").write_text(content)
    with pytest.raises(MlopsError, match=expected):
        load_project(tmp_path)


def test_defaults_of_the_project_hold_where_the_stack_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "__main__.py").write_text("")
    (tmp_path / "Pulumi.yaml").write_text(
        "name: shop\nruntime: {name: python}\n"
        "config: {a: 1, b: {type: string, default: x}, c: {value: [1]}, d: {type: string}}\n"
    )
    (tmp_path / "Pulumi.dev.yaml").write_text("config: {a: 2}")
    values = load_stack(load_project(tmp_path), "dev").values
    assert values == {"shop:a": "2", "shop:b": "x", "shop:c": "[1]"}


def test_an_old_secret_that_an_ignored_change_keeps_stays_sealed(site: Site) -> None:
    program = 'Thing("a", pin={}, size={}, opts=Opts(ignore_changes=["pin"]))'
    site.up(program.format('Output.secret("hunter2-hunter2")', 1))
    site.up(program.format('"plain"', 2))
    (thing,) = site.cloud.things().values()
    assert (thing["pin"], thing["size"]) == (SECRET, 2)
    assert SECRET not in (site.home / "state" / "dev.json").read_text()
