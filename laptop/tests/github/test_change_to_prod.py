"""A change from its pull request through checks, approval, merge and deployment to the next pull request."""

from __future__ import annotations

from pathlib import Path

import pytest

from laptop.github.forge.actors import RequestDeniedError
from laptop.github.forge.repository_settings import BranchProtection, RepositorySettings
from laptop.tests.github.sample_repository import APP_TOKEN, CHECKOUT, hub_with, push

pytestmark = pytest.mark.slow

FILES = {
    ".github/CODEOWNERS": "releases/ @acme/approvers\n",
    "releases/dev": "none\n",
    "releases/prod": "none\n",
    "ci.yml": f"""
    name: CI
    on: {{pull_request: {{paths: ['releases/**']}}}}
    permissions: {{contents: read, pull-requests: write}}
    jobs:
      gate:
        runs-on: ubuntu-latest
        steps:
          - {{uses: {CHECKOUT}, with: {{fetch-depth: 0, persist-credentials: false}}}}
          - run: |
              changed=$(git diff --name-only "origin/$GITHUB_BASE_REF...HEAD^2")
              test "$(cat $changed)" != bad
              echo "**$changed** is fine" > comment.md
              gh pr comment "${{{{ github.event.number }}}}" --body-file comment.md
            env: {{GH_TOKEN: '${{{{ github.token }}}}'}}
    """,
    "deploy.yml": f"""
    name: Deploy
    on: {{push: {{branches: [main], paths: ['releases/**']}}}}
    permissions: {{contents: read}}
    concurrency: {{group: deploy, cancel-in-progress: false, queue: max}}
    jobs:
      deploy:
        runs-on: ubuntu-latest
        environment: dev
        steps:
          - uses: {CHECKOUT}
            with: {{persist-credentials: false}}
          - run: cp releases/dev "$LIVE"
          - id: app
            uses: {APP_TOKEN}
            with:
              client-id: ${{{{ vars.APP_ID }}}}
              private-key: ${{{{ secrets.APP_KEY }}}}
          - {{uses: {CHECKOUT}, with: {{path: next, token: '${{{{ steps.app.outputs.token }}}}'}}}}
          - name: Ask for prod
            working-directory: next
            env: {{GH_TOKEN: '${{{{ steps.app.outputs.token }}}}'}}
            run: |
              if cmp -s releases/dev releases/prod; then exit 0; fi
              git switch -q -c "promote-prod"; cp releases/dev releases/prod
              git config user.name mlops-bot; git config user.email mlops-bot@users.noreply.github.localhost
              git commit -q -a -m 'Promote to prod'; git push -q origin promote-prod
              echo "Same as dev" > ../body.md
              gh pr create --title 'Promote to prod' --body-file ../body.md \\
                --head promote-prod --base main --label promotion
    """,
}


def test_a_merged_change_deploys_and_opens_the_next_pull_request(tmp_path: Path) -> None:
    live = tmp_path / "live"
    settings = RepositorySettings(
        users=("maria", "noah"),
        teams={"acme/approvers": ("noah",)},
        protection=BranchProtection(required_checks=("gate",)),
    )
    hub = hub_with(tmp_path, FILES, settings, environ={"LIVE": str(live)})
    app = hub.register_app("mlops-bot", {"contents": "write", "pull-requests": "write"})
    hub.set_variable("APP_ID", app.client_id)
    hub.set_secret("APP_KEY", app.private_key)

    clone = hub.clone(tmp_path / "clone", "maria")
    push(clone, "release", {"releases/dev": "bad\n"})
    number = hub.open("maria", "release", "Release to dev").number
    assert [(run.workflow, run.conclusion) for run in hub.pump()] == [("CI", "failure")]
    hub.approve("noah", number)
    with pytest.raises(RequestDeniedError) as caught:
        hub.merge("maria", number)
    assert caught.value.fix == "resolve: the required check 'gate' ended in failure"

    push(clone, "release", {"releases/dev": "bundle-1\n"})
    assert [(run.action, run.conclusion) for run in hub.pump()] == [("synchronize", "success")]
    assert [c["body"] for c in hub.server.comments(number)] == ["**releases/dev** is fine\n"]
    assert hub.blockers(number) == [
        "it has 0 of 1 approvals",
        "releases/dev lacks the approval of an owner (acme/approvers)",
    ]
    hub.approve("noah", number)
    hub.merge("maria", number)

    runs = hub.pump()
    assert [(run.workflow, run.event, run.actor, run.conclusion) for run in runs] == [
        ("Deploy", "push", "maria", "success"),
        ("CI", "pull_request", "mlops-bot[bot]", "success"),
    ]
    assert live.read_text() == "bundle-1\n"
    promotion = hub.pull_request(2)
    assert (promotion.author, promotion.labels, promotion.state) == ("mlops-bot[bot]", ("promotion",), "OPEN")

    hub.approve("noah", 2)
    hub.merge("noah", 2)
    assert [(run.workflow, run.conclusion) for run in hub.pump()] == [("Deploy", "success")]
    assert hub.pull_requests()[0].state == "MERGED"
    assert [run.number for run in hub.runs()] == [5, 4, 3, 2, 1]
