"""Files that setup writes for the repository: CODEOWNERS, the configuration of the bootstrap, and Pulumi.yaml."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.repository_files import (
    BootstrapOutputs,
    declared_subject,
    own_account,
    own_code_owners,
    own_program,
    read_outputs,
)
from pipelines.github.settings import placeholder_owners
from tests.pipelines.github.test_settings import facts

ROOT = Path(__file__).parents[3]
LINES = "* @acme/ml-platform\n/models/ @acme/data-science @acme/ml-platform\n/own/ @someone\n"
ACCOUNT = "config:\n  mlops-bootstrap:account:\n    repository: acme/mlops # yours\n{more}    owner: us\n"
NULLS = "    repository_ids: null # ids\n    subject_template: null # text\n"


def test_teams_become_those_of_the_organisation() -> None:
    text, absent = own_code_owners(LINES, "example", ["ml-platform"])
    assert text == "* @example/ml-platform\n/models/ @example/data-science @example/ml-platform\n/own/ @someone\n"
    assert absent == ("data-science",)


def test_a_user_owns_everything_because_there_are_no_teams() -> None:
    text, absent = own_code_owners(LINES, "ada", None)
    assert text == "* @ada\n/models/ @ada\n/own/ @someone\n"
    assert absent == ()


def test_an_owner_can_be_chosen_for_a_team() -> None:
    text, absent = own_code_owners(LINES, "example", ["ml-platform"], {"data-science": "@grace @example/lab"})
    assert "/models/ @grace @example/lab @example/ml-platform\n" in text
    assert absent == ()


@pytest.mark.parametrize(("owner", "teams"), [("example", []), ("ada", None)])
def test_the_file_of_the_template_gets_owners_once(owner: str, teams: list[str] | None) -> None:
    before = (ROOT / ".github/CODEOWNERS").read_text()
    text, _ = own_code_owners(before, owner, teams)
    if "@acme/" in before:
        assert text != before
    assert placeholder_owners(text, owner) == ()
    assert own_code_owners(text, owner, teams)[0] == text
    assert own_code_owners(before, "acme", [])[0] == before


@pytest.mark.parametrize(
    ("subject", "lines"),
    [
        ({"use_immutable_subject": True}, "    repository_ids: {owner: 5, repository: 9}\n"),
        ({"use_immutable_subject": False}, ""),
        (
            {"use_default": False, "include_claim_keys": ["repository_owner_id", "context"]},
            '    subject_template: "repository_owner_id:5:environment:{environment}"\n',
        ),
    ],
)
def test_the_bootstrap_gets_the_subject_of_the_repository(
    tmp_path: Path, subject: dict[str, object], lines: str
) -> None:
    found = facts(subject=subject)
    bare = own_account(ACCOUNT.format(more=""), found)
    assert bare == ACCOUNT.format(more=lines).replace("acme/mlops", "example/models")
    file = tmp_path / "infra/bootstrap/Pulumi.account.yaml"
    file.parent.mkdir(parents=True)
    for text in (bare, own_account(ACCOUNT.format(more=NULLS), found)):
        file.write_text(text)
        declared = declared_subject(tmp_path)
        assert own_account(text, found) == text
        assert declared is not None and "{environment}" in declared
        assert ("@9" in declared) is bool(subject.get("use_immutable_subject"))
        assert declared.startswith("repository_owner_id") is ("include_claim_keys" in subject)


def test_comments_of_the_configuration_stay() -> None:
    text = own_account(ACCOUNT.format(more=NULLS), facts())
    assert "    repository: example/models # yours\n" in text
    assert "    repository_ids: {owner: 5, repository: 9} # ids\n    subject_template: null # text\n" in text


def test_a_subject_that_no_role_can_trust_changes_nothing() -> None:
    text = ACCOUNT.format(more=NULLS)
    assert own_account(text, facts(subject={"use_default": False, "include_claim_keys": ["actor", "context"]})) == text


def test_without_a_configuration_no_subject_is_declared(tmp_path: Path) -> None:
    assert declared_subject(tmp_path) is None


def test_the_template_declares_a_subject() -> None:
    declared = declared_subject(ROOT)
    assert declared is not None and declared.startswith("repo:") and declared.endswith(":environment:{environment}")


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"variables": 1}', '{"variables": {"dev": {"A": 1}}}', "{"),
        *('{"variables": {}}', '{"variables": {}, "backend_url": ""}', '{"variables": {}, "backend_url": 1}'),
    ],
)
def test_outputs_that_are_not_those_of_the_bootstrap_are_refused(text: str) -> None:
    with pytest.raises(MlopsError, match="outputs of the bootstrap: expected") as error:
        read_outputs(text)
    assert "pulumi stack output --json" in error.value.fix


def test_outputs_of_the_bootstrap_are_read() -> None:
    found = read_outputs('{"state_bucket": "x", "variables": {"dev": {"A": "1"}}, "backend_url": "s3://x"}')
    assert found == BootstrapOutputs({"dev": {"A": "1"}}, "s3://x")


@pytest.mark.parametrize(
    "before",
    [
        "name: mlops\nmain: infra\n",
        "name: mlops\nbackend: {url: s3://old}\nmain: infra\n",
        "name: mlops\nmain: infra\nbackend:\n  # the old one\n  url: s3://old\n",
        "name: mlops\nmain: infra\nbackend:\n    url: s3://old",
    ],
)
def test_the_program_names_the_state_and_nothing_else_changes(tmp_path: Path, before: str) -> None:
    url = "s3://mlops-account-state-123456789012?region=eu-west-1"
    after = own_program(before, url)
    (tmp_path / "Pulumi.yaml").write_text(after)
    assert Project(tmp_path).backend == url and "old" not in after
    assert [line for line in after.splitlines() if line.startswith(("name", "main"))] == ["name: mlops", "main: infra"]
    assert own_program(after, url) == after


def test_facts_of_another_owner_change_the_name_only_once() -> None:
    owner = {"login": "other", "id": 5, "type": "User"}
    found = replace(facts(), about={**facts().about, "full_name": "other/x", "owner": owner})
    once = own_account(ACCOUNT.format(more=NULLS), found)
    assert "repository: other/x #" in once and once.count("other/x") == 1


def test_a_repository_made_from_the_template_has_its_own_owners() -> None:
    """Fail on GitHub, in a repository that is not the template, as long as CODEOWNERS names the template's teams."""
    event = Path(os.environ.get("GITHUB_EVENT_PATH", ""))
    if not event.is_file():
        pytest.skip("not a workflow on GitHub")
    repository = json.loads(event.read_text())["repository"]
    if repository.get("is_template"):
        pytest.skip("the template itself")
    owners = (ROOT / ".github/CODEOWNERS").read_text()
    assert placeholder_owners(owners, repository["owner"]["login"]) == (), "run `mlops github setup --apply`"
