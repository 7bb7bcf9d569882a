"""Fake of the part of GitHub's API that has the settings of a repository."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pipelines.github.gh import Gh, GitHubError
from pipelines.github.repository_facts import FORK_APPROVAL

REPOSITORY = "example/models"
APP = {"id": 77, "slug": "example-mlops", "client_id": "Iv23abc", "permissions": {}}


class FakeGitHub(Gh):
    """A repository without any settings, as GitHub makes it from a template.

    Attributes:
        state: the settings.
        writes: requests that changed something.
        refuse: "METHOD path" → error that this request ends in.
    """

    state: dict[str, Any]
    writes: list[str]
    refuse: dict[str, GitHubError]

    @classmethod
    def create(cls, root: Path, **about: Any) -> FakeGitHub:
        server = cls(root, REPOSITORY)
        permissions = {"admin": True, "push": True, "pull": True}
        owner = {"login": "example", "id": 5, "type": "Organization"}
        described = {"full_name": REPOSITORY, "id": 9, "owner": owner, "private": True, "permissions": permissions}
        described |= {"html_url": f"https://github.com/{REPOSITORY}", "visibility": "private", **about}
        state: dict[str, Any] = {
            "about": described,
            "plan": "team",
            "rulesets": {},
            "environments": {},
            "variables": {"": {}},
            "secrets": {"": set()},
            "actions": {"enabled": False},
            "token": {"default_workflow_permissions": "write", "can_approve_pull_request_reviews": True},
            "forks": {"approval_policy": "first_time_contributors"},
            "workflows": [
                {"id": 1, "name": "ci", "state": "active"},
                {"id": 2, "name": "audit", "state": "disabled_inactivity"},
            ],
            "labels": ["bug"],
            "owner_errors": [],
            "apps": {"example-mlops": {**APP, "permissions": {"actions": "write", "contents": "write"}}},
            "installations": [],
            "teams": {"ml-platform": 1, "ml-approvers": 2},
            "subject": {"use_default": True, "use_immutable_subject": True},
        }
        object.__setattr__(server, "state", state)
        object.__setattr__(server, "writes", [])
        object.__setattr__(server, "refuse", {})
        return server

    def run(self, *arguments: str, stdin: str = "") -> str:
        if arguments[0] == "secret":
            assert arguments[1:4:2] == ("set", "--env"), arguments
            self.writes.append(" ".join(arguments[:5]))
            self.state["secrets"].setdefault(arguments[4], set()).add(arguments[2])
            self.state.setdefault("secret values", {})[arguments[4], arguments[2]] = stdin
            return ""
        command, path, option, method, *rest = arguments
        assert (command, option) == ("api", "--method"), arguments
        assert rest in ([], ["--input", "-"]), arguments
        answer = self._answer(method, path, json.loads(stdin) if rest else {})
        return "" if answer is None else json.dumps(answer)

    def _answer(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        path, _, query = path.partition("?")
        if f"{method} {path}" in self.refuse:
            raise self.refuse[f"{method} {path}"]
        if method != "GET":
            self.writes.append(f"{method} {path.removeprefix(f'repos/{REPOSITORY}/')}")
        if query and "&page=1" not in f"&{query}":
            raise AssertionError("the fake has no second page")
        if path.startswith(f"repos/{REPOSITORY}"):
            return self._in_repository(method, path.removeprefix(f"repos/{REPOSITORY}").lstrip("/"), body)
        return self._elsewhere(path)

    def _elsewhere(self, path: str) -> Any:
        state = self.state
        if path == "orgs/example":
            return {"login": "example", "plan": {"name": state["plan"]}}
        if path == "orgs/example/teams":
            return [{"slug": slug, "id": number} for slug, number in state["teams"].items()]
        if path == "orgs/example/installations":
            return {"installations": state["installations"]}
        if path == "users/grace":
            return {"login": "grace", "id": 31}
        if path.startswith("apps/") and path[5:] in state["apps"]:
            return state["apps"][path[5:]]
        raise GitHubError(f"gh api {path}: gh: Not Found (HTTP 404)", 404)

    def _in_repository(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        state = self.state
        fixed: dict[str, Any] = {
            "": state["about"],
            "codeowners/errors": {"errors": state["owner_errors"]},
            "actions/oidc/customization/sub": state["subject"],
            "labels": [{"name": name} for name in state["labels"]],
            "actions/workflows": {"workflows": state["workflows"]},
            "actions/permissions": state["actions"],
            "actions/permissions/workflow": state["token"],
            FORK_APPROVAL: state["forks"],
            "environments": {"environments": [self._environment(name) for name in state["environments"]]},
            "rulesets": [{"id": number, "target": each["target"]} for number, each in state["rulesets"].items()],
        }
        if method == "GET" and path in fixed:
            return fixed[path]
        if path == "labels":
            state["labels"].append(body["name"])
        elif path == FORK_APPROVAL:
            state["forks"].update(body)
        elif path in ("actions/permissions", "actions/permissions/workflow"):
            state["actions" if path == "actions/permissions" else "token"].update(body)
        elif found := re.fullmatch(r"actions/workflows/(\d+)/enable", path):
            next(each for each in state["workflows"] if each["id"] == int(found[1]))["state"] = "active"
        elif found := re.fullmatch(r"rulesets(?:/(\d+))?", path):
            number = int(found[1] or len(state["rulesets"]) + 1)
            if method == "GET":
                return {"id": number, "source": REPOSITORY, **state["rulesets"][number]}
            state["rulesets"][number] = dict(body)
        elif found := re.fullmatch(r"(?:environments/([^/]+)|actions)/(variables|secrets)(?:/(\w+))?", path):
            return self._stored(method, unquote(found[1] or ""), found[2], body)
        elif found := re.fullmatch(r"environments/([^/]+)(/deployment-branch-policies)?(?:/(\d+))?", path):
            return self._change_environment(method, unquote(found[1]), bool(found[2]), int(found[3] or 0), body)
        else:
            raise GitHubError(f"gh api {path}: gh: Not Found (HTTP 404)", 404)
        return None

    def _stored(self, method: str, where: str, kind: str, body: Mapping[str, Any]) -> Any:
        if where and where not in self.state["environments"]:
            raise GitHubError("gh: Not Found (HTTP 404)", 404)
        group = self.state[kind].setdefault(where, {} if kind == "variables" else set())
        if method == "GET":
            values = group if kind == "variables" else dict.fromkeys(sorted(group), "")
            return {kind: [{"name": name, "value": value} for name, value in values.items()]}
        if (method == "POST") == (body["name"] in group):
            raise GitHubError("gh: Already exists (HTTP 409)", 409)
        group[body["name"]] = body["value"]
        return None

    def _environment(self, name: str) -> dict[str, Any]:
        found = self.state["environments"][name]
        rules = [{"type": "wait_timer", "wait_timer": found["wait_timer"]}] if found.get("wait_timer") else []
        if found.get("reviewers"):
            people = [
                {"type": each["type"], "reviewer": {"id": each["id"], "login": f"user-{each['id']}"}}
                for each in found["reviewers"]
            ]
            rules.append({"type": "required_reviewers", "reviewers": people, "prevent_self_review": True})
        described = {"name": name, "protection_rules": rules, "can_admins_bypass": found.get("can_admins_bypass", True)}
        return {**described, "deployment_branch_policy": found.get("deployment_branch_policy")}

    def _change_environment(self, method: str, name: str, is_policy: bool, number: int, body: Mapping[str, Any]) -> Any:
        environments = self.state["environments"]
        if not is_policy:
            environments[name] = {"policies": environments.get(name, {}).get("policies", {}), **body}
            return None
        policies = environments[name]["policies"]
        if method == "GET":
            return {"branch_policies": [{"id": each, "name": text} for each, text in policies.items()]}
        if method == "DELETE":
            del policies[number]
        else:
            policies[max(policies, default=0) + 1] = body["name"]
        return None
