"""Settings of the repository on GitHub: what each must be, and the verdict on it.

Each setting is a row of docs/repository-settings.md and a finding of `mlops doctor`. `mlops github setup` changes those
that GitHub's API can change. Everything here is a pure function of the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.declarations.token_subject import RepositoryIds, customised_template, default_template
from pipelines.github.repository_facts import APP_SLUG, EnvironmentFacts, RepositoryFacts, Unreadable

REQUIRED_CHECKS = ("gates", "test")
"""Names of the jobs that must pass before a merge."""

ACTIONS_APP = 15368
"""Id of the app GitHub Actions on github.com: a required check counts only if a workflow set it."""

PAGE = "docs/repository-settings.md"
COMMAND = "mlops github setup --apply"

PREVIEW, IMAGES = "preview", "images"
REPOSITORY = "repository"
"""Name of the group of variables of the repository itself, as in the output `variables` of the bootstrap."""

APP_PERMISSIONS = {"actions": "write", "contents": "write", "pull_requests": "write"}
"""What the GitHub App must be allowed to do."""

ALL_OUTSIDERS = "all_external_contributors"
"""Policy for workflows of pull requests from forks: all wait for an approval, and not only those of newcomers."""

APP_KEY = "APP_PRIVATE_KEY"
"""Name of the secret with the app's private key."""

TARGET, AWS = "MLOPS_TARGET", "aws"
"""Variable that names the target of jobs, and its value in a repository that deploys to AWS."""

PLACEHOLDER_OWNER = "acme"
"""The organisation that owns everything in the template's CODEOWNERS."""

_RULES = ("pull_request", "required_status_checks")
"""Types of the rules that a rollback must be able to pass."""

BYPASS = "main: bypass"
"""Name of the setting of who may bypass the rules of main."""

_APP_ALONE = "the app, and nobody else"

Status = Literal["ok", "missing", "not visible"]


@dataclass(frozen=True)
class Setting:
    """A setting of the repository, and the verdict on it.

    Attributes:
        name: the setting.
        status: `ok` if it is as documented, `not visible` if this token may not read it.
        found: its value, or why it is not visible.
        wanted: the value that it must have.
        fix: what to do if it is not ok.
    """

    name: str
    status: Status
    found: str
    wanted: str
    fix: str = PAGE

    @property
    def ok(self) -> bool:
        """Whether it is as documented."""
        return self.status == "ok"


@dataclass(frozen=True)
class WantedSettings:
    """What differs between repositories; the rest of the settings is the same in all.

    Attributes:
        environments: the environments of the project.
        labels: labels that the issue forms use.
        subject: template of the subject that the roles in AWS trust; None if the bootstrap has no configuration.
        backend: URL of the Pulumi state that the committed `Pulumi.yaml` names; None if it names none.
        variables: `repository` or a GitHub environment → name → value; as far as known.
        reviewers: environment → (`User` or `Team`, id, name) of those who must approve its deployments.
    """

    environments: tuple[str, ...]
    labels: frozenset[str] = frozenset()
    subject: str | None = None
    backend: str | None = None
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    reviewers: Mapping[str, tuple[tuple[str, int, str], ...]] = field(default_factory=dict)

    @property
    def github_environments(self) -> tuple[str, ...]:
        """Names of all GitHub environments."""
        return (*self.environments, IMAGES, PREVIEW)

    @property
    def variable_names(self) -> dict[str, tuple[str, ...]]:
        """`repository` or a GitHub environment → names of the variables that it must have."""
        return {
            REPOSITORY: ("APP_CLIENT_ID", APP_SLUG, "AWS_REGION", TARGET),
            PREVIEW: ("AWS_PREVIEW_ROLE",),
            IMAGES: ("AWS_IMAGES_ROLE",),
            **dict.fromkeys(self.environments, ("AWS_DEPLOY_ROLE",)),
        }


Judgement = tuple[bool, str]
"""Whether a fact is as wanted, and the fact in words."""


def judge_settings(facts: RepositoryFacts, wanted: WantedSettings) -> list[Setting]:
    """Return the verdict on every setting, in the order of the page."""
    return [
        *_judge_repository(facts),
        *_judge_rules(facts),
        *_judge_owners(facts),
        *_judge_environments(facts, wanted),
        *_judge_actions(facts),
        *_judge_app(facts, wanted),
        *_judge_variables(facts, wanted),
        _judge_state(facts, wanted),
        *_judge_subject(facts, wanted),
        _judge(
            "labels",
            f"{', '.join(sorted(wanted.labels)) or 'none'}",
            facts.labels,
            lambda labels: (wanted.labels <= labels, _absent("missing: ", wanted.labels - labels)),
            COMMAND,
        ),
    ]


def _judge(
    name: str, wanted: str, fact: Any | Unreadable, look: Callable[[Any], Judgement], fix: str = PAGE
) -> Setting:
    """Return the verdict on one setting.

    Args:
        name: of the setting.
        wanted: the value that it must have, in words.
        fact: what `look` judges.
        look: judges a fact that could be read.
        fix: what to do if it is not ok.
    """
    if isinstance(fact, Unreadable):
        return Setting(name, "not visible", fact.why, wanted, "run this as an administrator of the repository")
    ok, found = look(fact)
    return Setting(name, "ok" if ok else "missing", found, wanted, fix)


def _absent(prefix: str, names: Iterable[str]) -> str:
    listed = sorted(names)
    return prefix + ", ".join(listed) if listed else "all there"


# --- the repository and its plan ---


def _judge_repository(facts: RepositoryFacts) -> list[Setting]:
    is_fork = bool(facts.about.get("fork"))
    return [
        Setting(
            "repository: not a fork",
            "missing" if is_fork else "ok",
            "a fork" if is_fork else "not a fork",
            "not a fork",
            'make a new repository with "Use this template": the schedules of a fork are off, and its code is public',
        ),
        _judge(
            "plan",
            "public, or a paid plan",
            facts.plan if facts.is_private else "public",
            lambda plan: (
                plan != "free",
                f"private, plan {plan}" if facts.is_private else "public: every plan has what is needed",
            ),
            "choose GitHub Pro, Team or Enterprise, or make the repository public",
        ),
    ]


# --- rulesets ---


def active_on_main(ruleset: Mapping[str, Any]) -> bool:
    """Return whether a ruleset is enforced on the default branch."""
    names = ruleset.get("conditions", {}).get("ref_name", {})
    main = {"~DEFAULT_BRANCH", "~ALL", "refs/heads/main"}
    return (
        ruleset.get("enforcement") == "active"
        and bool(main & set(names.get("include", [])))
        and not main & set(names.get("exclude", []))
    )


RULE_ROWS = {
    "main: pull request": "required",
    "main: approvals": "1 or more",
    "main: code owners": "must approve",
    "main: stale approvals": "dismissed",
    "main: last pusher": "may not approve",
    "main: required checks": f"{', '.join(REQUIRED_CHECKS)}, from GitHub Actions",
    "main: force pushes": "blocked",
    "main: deletion": "blocked",
}
"""Setting of the rules of main → the value that it must have."""


def judge_rules(rules: Sequence[Mapping[str, Any]]) -> dict[str, Judgement]:
    """Judge the rules that are enforced on main. Of several rules of a type, the strictest value counts."""
    parameters = [(str(rule["type"]), rule.get("parameters") or {}) for rule in rules]
    types = {kind for kind, _ in parameters}
    reviews = [found for kind, found in parameters if kind == "pull_request"]
    checks = [
        (str(check["context"]), check.get("integration_id"))
        for kind, found in parameters
        if kind == "required_status_checks"
        for check in found.get("required_status_checks", [])
    ]
    approvals = max((int(found.get("required_approving_review_count", 0)) for found in reviews), default=0)

    def flag(name: str, yes: str, no: str) -> Judgement:
        is_set = any(bool(found.get(name)) for found in reviews)
        return is_set, yes if is_set else no

    absent = set(REQUIRED_CHECKS) - {name for name, _ in checks}
    loose = set(REQUIRED_CHECKS) - {name for name, source in checks if source == ACTIONS_APP} - absent
    problems = [
        *([_absent("missing: ", absent)] if absent else []),
        *([_absent("from any source: ", loose)] if loose else []),
    ]
    return {
        "main: pull request": (bool(reviews), "required" if reviews else "not required"),
        "main: approvals": (approvals >= 1, str(approvals)),
        "main: code owners": flag("require_code_owner_review", "must approve", "need not approve"),
        "main: stale approvals": flag("dismiss_stale_reviews_on_push", "dismissed", "stay valid"),
        "main: last pusher": flag("require_last_push_approval", "may not approve", "may approve"),
        "main: required checks": (not problems, "; ".join(problems) or ", ".join(REQUIRED_CHECKS)),
        "main: force pushes": _blocked("non_fast_forward" in types),
        "main: deletion": _blocked("deletion" in types),
    }


def _blocked(is_blocked: bool) -> Judgement:
    return is_blocked, "blocked" if is_blocked else "allowed"


def _judge_rules(facts: RepositoryFacts) -> list[Setting]:
    if isinstance(facts.rulesets, Unreadable):
        hidden = facts.rulesets
        rows = [_judge(name, wanted, hidden, lambda _: (False, "")) for name, wanted in RULE_ROWS.items()]
        return [*rows, _judge(BYPASS, _APP_ALONE, hidden, lambda _: (False, ""))]
    active = [found for found in facts.rulesets if active_on_main(found)]
    judged = judge_rules([rule for found in active for rule in found.get("rules", [])])
    rows = [_judge(name, wanted, judged[name], lambda each: each, COMMAND) for name, wanted in RULE_ROWS.items()]
    return [*rows, _judge_bypass(facts, active)]


def _judge_bypass(facts: RepositoryFacts, active: Sequence[Mapping[str, Any]]) -> Setting:
    """Judge who may bypass the rules: nobody but the app, which must be able to pass every one of them."""
    ruling = [found for found in active if {str(rule["type"]) for rule in found.get("rules", [])} & set(_RULES)]
    if any("bypass_actors" not in found for found in ruling):
        hidden = Unreadable("GitHub shows bypass lists to administrators only")
        return _judge(BYPASS, _APP_ALONE, hidden, lambda _: (False, ""))
    app = app_id(facts)
    lists = [{_actor(each) for each in found["bypass_actors"]} for found in ruling]
    own = f"the app {app}"
    # A ruleset that has every rule cannot be bypassed through the list of another one.
    complete = [
        names
        for names, found in zip(lists, ruling, strict=True)
        if all(ok for ok, _ in judge_rules(found["rules"]).values())
    ]
    others = set.intersection(*complete) if complete else set().union(*lists)
    problems = []
    if others - {own}:
        problems.append(f"also {', '.join(sorted(others - {own}))}")
    if app is None:
        problems.append("no app is named")
    elif not ruling or not all(own in names for names in lists):
        problems.append("the app may not, so a rollback cannot push")
    found = "; ".join(problems) or _APP_ALONE
    return Setting(BYPASS, "missing" if problems else "ok", found, _APP_ALONE, f"{COMMAND} --app SLUG")


def _actor(actor: Mapping[str, Any]) -> str:
    kind, number = str(actor.get("actor_type")), actor.get("actor_id")
    if kind == "Integration":
        return f"the app {number}"
    if (kind, number) == ("RepositoryRole", 5):
        return "administrators of the repository"
    words = {"OrganizationAdmin": "owners of the organisation", "DeployKey": "deploy keys", "Team": "the team"}
    return f"{words.get(kind, kind)} {number}" if kind not in ("OrganizationAdmin", "DeployKey") else words[kind]


def app_id(facts: RepositoryFacts) -> int | None:
    """Return the id of the GitHub App; None if none is named, or it cannot be read."""
    return None if facts.app is None or isinstance(facts.app, Unreadable) else int(facts.app["id"])


# --- code owners ---


def placeholder_owners(text: str, owner: str) -> tuple[str, ...]:
    """Return the owners in CODEOWNERS that only the template has, sorted; none if `owner` is the template's."""
    if owner.lower() == PLACEHOLDER_OWNER:
        return ()
    lines = [line.partition("#")[0] for line in text.splitlines()]
    found = {word for line in lines for word in line.split()[1:] if word.startswith(f"@{PLACEHOLDER_OWNER}/")}
    return tuple(sorted(found))


def _judge_owners(facts: RepositoryFacts) -> list[Setting]:
    is_template = bool(facts.about.get("is_template"))
    placeholders = () if is_template else placeholder_owners(facts.code_owners, facts.owner)

    def look(errors: Sequence[Mapping[str, Any]]) -> Judgement:
        told = [f"line {each['line']}: {each['kind']}" for each in errors]
        return not told, "; ".join(told) or "every owner exists and may write"

    return [
        Setting(
            "code owners: your own",
            "ok" if facts.code_owners and not placeholders else "missing",
            f"placeholders: {', '.join(placeholders)}"
            if placeholders
            else ("your own" if facts.code_owners else "there is no .github/CODEOWNERS"),
            "your own teams or people",
            "mlops github setup writes .github/CODEOWNERS: commit it by pull request",
        ),
        _judge(
            "code owners: valid",
            "every owner exists and may write",
            () if is_template and not isinstance(facts.owner_errors, Unreadable) else facts.owner_errors,
            look,
            "correct .github/CODEOWNERS on main, and give its teams write access to the repository",
        ),
    ]


# --- environments ---


def _judge_environments(facts: RepositoryFacts, wanted: WantedSettings) -> list[Setting]:
    rows = []
    for name in wanted.github_environments:
        text = "exists" if name == PREVIEW else "main only"

        def look(found: Mapping[str, EnvironmentFacts], name: str = name) -> Judgement:
            if name not in found:
                return False, "does not exist"
            return judge_environment(found[name], wanted.reviewers.get(name))

        rows.append(_judge(f"environment {name}", text, facts.environments, look, COMMAND))
    return [*rows, _judge_administrators(facts, wanted)]


def judge_environment(found: EnvironmentFacts, reviewers: tuple[tuple[str, int, str], ...] | None = None) -> Judgement:
    """Judge which branches may deploy to an environment, and who must approve it.

    Args:
        found: the environment.
        reviewers: those who must approve; None if any are accepted.
    """
    text = "every branch" if found.branches is None else ", ".join(found.branches) or "no branch"
    if found.protected_branches:
        text = "protected branches"
    if found.reviewers:
        text += f"; {', '.join(name for _, _, name in found.reviewers)} must approve, and a rollback waits for it"
    is_open = found.name == PREVIEW
    same = reviewers is None or {each[:2] for each in reviewers} == {each[:2] for each in found.reviewers}
    fits = found.branches is None if is_open else found.branches == ("main",)
    return fits and same, text


def _judge_administrators(facts: RepositoryFacts, wanted: WantedSettings) -> Setting:
    text = "may not bypass"
    can_limit = not facts.is_private or isinstance(facts.plan, Unreadable) or facts.plan.startswith("enterprise")

    def look(found: Mapping[str, EnvironmentFacts]) -> Judgement:
        named = [each for each in wanted.environments if each in found and found[each].admins_bypass is not False]
        if not named:
            return True, text
        return not can_limit, f"may bypass {', '.join(named)}" + ("" if can_limit else f": plan {facts.plan}")

    return _judge("environments: administrators", text, facts.environments, look, COMMAND)


# --- Actions ---


def _judge_actions(facts: RepositoryFacts) -> list[Setting]:
    def allowed(found: Mapping[str, Any]) -> Judgement:
        kind = found.get("allowed_actions", "all")
        if not found.get("enabled"):
            return False, "off"
        return kind != "local_only", {"all": "on", "local_only": "on, but only your own actions"}.get(
            kind, f"on, {kind}"
        )

    def states(found: Sequence[Mapping[str, Any]]) -> Judgement:
        off = [f"{each['name']} ({each['state']})" for each in found if _is_off(each)]
        return not off, "; ".join(off) or f"{len(found)} active"

    return [
        _judge("Actions", "on", facts.actions, allowed, COMMAND),
        _judge("workflows", "active", facts.workflows, states, COMMAND),
        _judge(
            "Actions: token",
            "read",
            facts.token,
            lambda found: (found["default_workflow_permissions"] == "read", str(found["default_workflow_permissions"])),
            COMMAND,
        ),
        _judge(
            "Actions: pull requests",
            "may not create or approve",
            facts.token,
            lambda found: (
                not found["can_approve_pull_request_reviews"],
                "may create and approve" if found["can_approve_pull_request_reviews"] else "may not create or approve",
            ),
            COMMAND,
        ),
        _judge(
            "Actions: forks",
            "approval for all outside contributors",
            facts.fork_approval if facts.fork_approval is not None else "none: the repository is private",
            lambda found: (facts.fork_approval in (None, ALL_OUTSIDERS), found),
            COMMAND,
        ),
    ]


def _is_off(workflow: Mapping[str, Any]) -> bool:
    return str(workflow["state"]).startswith("disabled")


def disabled_workflows(facts: RepositoryFacts) -> list[Mapping[str, Any]]:
    """Return the workflows that are turned off, by hand or by GitHub."""
    return [] if isinstance(facts.workflows, Unreadable) else [each for each in facts.workflows if _is_off(each)]


# --- the app ---


def _judge_app(facts: RepositoryFacts, wanted: WantedSettings) -> list[Setting]:
    needed = ", ".join(f"{scope}: {level}" for scope, level in APP_PERMISSIONS.items())
    create = f"create a GitHub App with {needed}, then: {COMMAND} --app SLUG"
    rows = []
    if facts.app is None:
        rows.append(Setting("app", "missing", f"the variable {APP_SLUG} names none", needed, create))
    else:
        rows.append(_judge("app", needed, facts.app, lambda app: judge_app(app["permissions"]), _app_page(facts)))
    if facts.app is None:
        rows.append(Setting("app: installed", "missing", "no app is named", "on this repository only", create))
    else:
        rows.append(
            _judge("app: installed", "on this repository only", facts.installation, _look_at_installation, create)
        )
    for name in wanted.environments:
        found: Any = facts.environments
        if not isinstance(found, Unreadable):
            found = found[name].secrets if name in found else frozenset()
        rows.append(
            _judge(
                f"secret {APP_KEY}: {name}",
                "set",
                found,
                lambda secrets: (APP_KEY in secrets, "set" if APP_KEY in secrets else "not set"),
                f"{COMMAND} --app-key FILE",
            )
        )
    rows.append(
        _judge(
            f"secret {APP_KEY}: {REPOSITORY}",
            "not set",
            facts.secrets,
            lambda secrets: (APP_KEY not in secrets, "set: any branch can use it" if APP_KEY in secrets else "not set"),
            f"gh secret delete {APP_KEY}",
        )
    )
    return rows


def judge_app(permissions: Mapping[str, str]) -> Judgement:
    """Judge the permissions of an app."""
    lacking = [f"{scope}: {level}" for scope, level in APP_PERMISSIONS.items() if permissions.get(scope) != level]
    return not lacking, f"lacks {', '.join(lacking)}" if lacking else "has its permissions"


def _look_at_installation(found: Mapping[str, Any] | None) -> Judgement:
    if found is None:
        return False, "not installed"
    if found.get("suspended_at"):
        return False, "suspended"
    ok, text = judge_app(found.get("permissions", {}))
    if not ok:
        return False, f"{text}: accept the app's new permissions"
    if found.get("repository_selection") == "all":
        return False, "on every repository of the organisation"
    return True, "on selected repositories"


def _app_page(facts: RepositoryFacts) -> str:
    """Return where to change the app's permissions, which no API can."""
    slug = facts.app["slug"] if facts.app is not None and not isinstance(facts.app, Unreadable) else "SLUG"
    page = f"{facts.about.get('html_url', 'https://github.com/').split('/' + facts.owner)[0]}"
    where = f"organizations/{facts.owner}/settings" if facts.is_organisation else "settings"
    return f"change them on {page}/{where}/apps/{slug}/permissions, then accept them on the installation"


# --- variables ---


def _judge_variables(facts: RepositoryFacts, wanted: WantedSettings) -> list[Setting]:
    rows = []
    for group, names in wanted.variable_names.items():
        found = variables_of(facts, group)
        for name in names:
            value = wanted.variables.get(group, {}).get(name)

            def look(variables: Mapping[str, str], name: str = name, value: str | None = value) -> Judgement:
                present = variables.get(name, "")
                return (present == value) if value is not None else bool(present), present or "not set"

            option = "--app SLUG" if name.startswith("APP_") else "--outputs FILE"
            rows.append(_judge(f"variable {name}: {group}", value or "set", found, look, f"{COMMAND} {option}"))
    return rows


def variables_of(facts: RepositoryFacts, group: str) -> Mapping[str, str] | Unreadable:
    """Return the variables of the repository, or of a GitHub environment; none if that does not exist."""
    if group == REPOSITORY:
        return facts.variables
    if isinstance(facts.environments, Unreadable):
        return facts.environments
    return facts.environments[group].variables if group in facts.environments else {}


def _judge_state(facts: RepositoryFacts, wanted: WantedSettings) -> Setting:
    """Judge where jobs find the Pulumi state: in a reviewed file, because everyone with write access sets variables.

    Only jobs on AWS read it.
    """
    name, fix = "Pulumi.yaml: backend", f"{COMMAND} --outputs FILE, and commit Pulumi.yaml"
    found = {} if isinstance(facts.variables, Unreadable) else facts.variables
    target = wanted.variables.get(REPOSITORY, {}).get(TARGET) or found.get(TARGET) or AWS
    if target != AWS:
        return Setting(
            name, "ok", f"not used: the target is {target}", f"url of the state, if the target is {AWS}", fix
        )
    status: Status = "missing" if wanted.backend is None else "ok"
    return Setting(name, status, wanted.backend or "not set", "url of the state", fix)


# --- the subject of OIDC tokens ---


def subject_template(facts: RepositoryFacts) -> str | Unreadable:
    """Return the template of the subject of this repository's tokens.

    `Unreadable` if it is customised in a way that no role can trust: `status` is then 422.
    """
    found = facts.subject
    if isinstance(found, Unreadable):
        return found
    name = str(facts.about["full_name"])
    ids = {"owner": int(facts.about["owner"]["id"]), "repository": int(facts.about["id"])}
    keys = [] if found.get("use_default", True) else found.get("include_claim_keys") or []
    if "use_immutable_subject" not in found and (not keys or "repo" in keys):
        # Wrong either way for half of the repositories, and a wrong subject lets no job sign in.
        return Unreadable("GitHub does not say whether the subject carries ids")
    carried = RepositoryIds.model_validate(ids) if found.get("use_immutable_subject") else None
    if not keys:
        return default_template(name, carried)
    visibility = facts.about.get("visibility", "private" if facts.is_private else "public")
    claims = {
        "repo": default_template(name, carried).partition(":environment:")[0],
        "repository": name,
        "repository_id": ids["repository"],
        "repository_owner": facts.owner,
        "repository_owner_id": ids["owner"],
        "repository_visibility": visibility,
    }
    try:
        return customised_template(keys, claims)
    except ValueError as error:
        return Unreadable(str(error), 422)


def _judge_subject(facts: RepositoryFacts, wanted: WantedSettings) -> list[Setting]:
    name, file = "OIDC subject", "infra/bootstrap/Pulumi.account.yaml"
    template = subject_template(facts)
    if isinstance(template, Unreadable):
        if template.status != 422:
            return [_judge(name, wanted.subject or "known", template, lambda _: (False, ""))]
        fix = "reset it: gh api -X PUT repos/{owner}/{repo}/actions/oidc/customization/sub -F use_default=true"
        return [Setting(name, "missing", f"cannot be trusted: {template.why}", wanted.subject or "known", fix)]
    fix = f"mlops github setup writes it to {file}; then run the bootstrap again"
    if wanted.subject is None:
        return [Setting(name, "missing", f"{template}, but {file} names no repository", template, fix)]
    return [Setting(name, "ok" if template == wanted.subject else "missing", template, wanted.subject, fix)]
