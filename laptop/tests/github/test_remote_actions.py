"""Stand-ins of remote actions."""

from __future__ import annotations

from pathlib import Path

import pytest

from laptop.github.actions.remote import ActionCall, ActionResult
from laptop.github.runner.results import WorkflowRun
from laptop.tests.github.sample_repository import APP_TOKEN, CHECKOUT, DOWNLOAD, UPLOAD, git, hub_with, push
from pipelines.declarations.errors import MlopsError

pytestmark = pytest.mark.slow

BUILD = "docker/build-push-action@53b7df96c91f9c12dcc8a07bcb9ccacbed38856a"
PYTHON = "actions/setup-python@5fda3b95a4ea91299a34e894583c3862153e4b97"


def errors(run: WorkflowRun, job: str) -> str:
    return " ".join(annotation.message for annotation in run.job(job).annotations)


def log_of(run: WorkflowRun, job: str) -> str:
    log = run.job(job).log
    assert log is not None
    return log.read_text(encoding="utf-8")


def test_a_run_that_is_started_again_has_its_old_commit_unless_it_checks_out_a_branch(tmp_path: Path) -> None:
    job = "runs-on: ubuntu-latest, steps: [{{uses: {}{}}}, {{run: git log -1 --format=at-%s}}]"
    jobs = {"event": job.format(CHECKOUT, ""), "main": job.format(CHECKOUT, ", with: {ref: refs/heads/main}")}
    lines = "\n".join(f"  {name}: {{{text}}}" for name, text in jobs.items())
    hub = hub_with(tmp_path, {"w.yml": f"on: {{push: {{branches: [main]}}}}\njobs:\n{lines}\n"})
    clone = hub.clone(tmp_path / "clone", "maria")
    push(clone, "main", {"x": "1"}, "First")
    (first,) = hub.pump()
    push(clone, "main", {"x": "2"}, "Second")
    hub.pump()
    hub.rerun(first.number)
    (again,) = hub.pump()
    assert "at-First" in log_of(again, "event")
    assert "at-Second" in log_of(again, "main")


def test_checkout_has_the_requested_depth_and_pushes_only_with_its_token(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path,
        {
            "w.yml": f"""
            on: {{push: {{branches: [main]}}}}
            permissions: {{contents: read}}
            jobs:
              shallow:
                runs-on: ubuntu-latest
                steps:
                  - uses: {CHECKOUT}
                  - run: test "$(git rev-list --count HEAD)" = 1; test "$(git branch --show-current)" = main
                  - run: git fetch --quiet origin other && git log -1 --format=%s FETCH_HEAD
                  - run: git push origin HEAD:refs/heads/denied 2>&1
              deep:
                runs-on: ubuntu-latest
                steps:
                  - uses: {CHECKOUT}
                    with: {{fetch-depth: 0, path: sub, ref: other}}
                  - working-directory: sub
                    run: |
                      git merge-base origin/main HEAD; git log --format=%s; git tag
                      test "$(git rev-parse HEAD)" = "$(git rev-parse origin/other)"
              bare:
                runs-on: ubuntu-latest
                permissions: {{contents: write}}
                steps:
                  - uses: {CHECKOUT}
                    with: {{persist-credentials: false}}
                  - run: git push origin HEAD:refs/heads/denied 2>&1
              writes:
                runs-on: ubuntu-latest
                permissions: {{contents: write}}
                steps:
                  - uses: {CHECKOUT}
                  - run: git commit --allow-empty -m x 2>&1 && exit 1 || true
                  - run: |
                      git config user.name bot; git config user.email bot@x
                      git commit --quiet --allow-empty -m made; git push --quiet origin HEAD:refs/heads/made
              helper:
                runs-on: ubuntu-latest
                permissions: {{contents: write}}
                env: {{GH_TOKEN: '${{{{ github.token }}}}'}}
                steps:
                  - uses: {CHECKOUT}
                    with: {{persist-credentials: false}}
                  - run: git -c credential.helper='!gh auth git-credential' push --quiet origin HEAD:refs/heads/helped
                  - run: gh auth setup-git; git push --quiet origin HEAD:refs/heads/set-up
                  - run: GH_TOKEN=wrong git push origin HEAD:refs/heads/denied 2>&1
              twice:
                name: shallow
                runs-on: ubuntu-latest
                steps:
                  - uses: {CHECKOUT}
                  - run: echo left > left
                  - uses: {CHECKOUT}
                    with: {{ref: other, persist-credentials: false}}
                  - run: |
                      test ! -e left; test -e o
                      if git config http.https://github.localhost/.extraheader; then exit 1; fi
                      test "$(git config --get-all remote.origin.url | wc -l)" = 1
              network:
                runs-on: ubuntu-latest
                steps: [{{run: git ls-remote https://github.com/acme/mlops 2>&1}}]
              refused:
                runs-on: ubuntu-latest
                steps: [{{uses: {CHECKOUT}, with: {{submodules: true}}}}]
              none:
                runs-on: ubuntu-latest
                permissions: {{}}
                steps: [{{uses: {CHECKOUT}}}]
            """
        },
    )
    clone = hub.clone(tmp_path / "clone", "maria")
    git(clone, "tag", "v1")
    push(clone, "other", {"o": "1"}, "On other [skip ci]")
    git(clone, "push", "--quiet", "origin", "v1")
    git(clone, "switch", "--quiet", "main")
    push(clone, "main", {"x": "1"}, "Second")
    (run,) = hub.pump()
    assert [step.conclusion for step in run.jobs[0].steps] == ["success", "success", "success", "failure"]
    assert run.jobs[0].log is not None
    assert "On other" in run.jobs[0].log.read_text()
    assert "Resource not accessible by integration" in run.jobs[0].log.read_text()
    assert run.job("deep").conclusion == "success"
    assert "First commit" in log_of(run, "deep")
    assert "no credential" in log_of(run, "bare")
    assert run.job("writes").conclusion == "success"
    made = hub.server.repository.resolve_ref("made")
    assert made is not None
    assert [step.conclusion for step in run.job("helper").steps] == ["success", "success", "success", "failure"]
    assert hub.server.repository.resolve_ref("helped") == hub.server.repository.resolve_ref("set-up") == run.sha
    assert hub.server.repository.resolve_ref("denied") is None
    twice = next(job for job in run.jobs if job.id == "twice")
    assert twice.conclusion == "success"
    assert "transport 'https' not allowed" in log_of(run, "network")
    assert "unknown input 'submodules'" in errors(run, "refused")
    assert "Resource not accessible" in errors(run, "none")


@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_checkout_has_the_history_of_a_clone_with_the_same_depth(tmp_path: Path, depth: int) -> None:
    workflow = f"""
    on: workflow_dispatch
    permissions: {{contents: read}}
    jobs:
      a:
        runs-on: ubuntu-latest
        steps:
          - uses: {CHECKOUT}
            with: {{fetch-depth: {depth}}}
          - run: git log --format='commit %H %P' --topo-order; git fsck --connectivity-only
    """
    hub = hub_with(tmp_path, {"w.yml": workflow})
    clone = hub.clone(tmp_path / "clone", "maria")
    push(clone, "main", {"a": "1"})
    push(clone, "side", {"b": "1"})
    push(clone, "side", {"b": "2"})
    git(clone, "switch", "--quiet", "main")
    push(clone, "main", {"a": "2"})
    git(clone, "merge", "--quiet", "--no-edit", "side")
    git(clone, "push", "--quiet", "origin", "main")
    hub.dispatch("maria", "w.yml")
    (run,) = [run for run in hub.pump() if run.event == "workflow_dispatch"]
    assert run.conclusion == "success", errors(run, "a")
    url = hub.server.repository.path.as_uri()
    git(tmp_path, "clone", "--quiet", f"--depth={depth}", url, str(tmp_path / "expected"))
    expected = git(tmp_path / "expected", "log", "--format=commit %H %P", "--topo-order")
    assert [line.strip() for line in log_of(run, "a").splitlines() if line.startswith("commit ")] == [
        line.strip() for line in expected.splitlines()
    ]


def test_artifacts_pass_files_between_jobs(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path,
        {
            "w.yml": f"""
            on: workflow_dispatch
            jobs:
              make:
                runs-on: ubuntu-latest
                steps:
                  - run: |
                      mkdir -p out/deep other
                      for file in out/a.txt out/deep/b.txt out/c.log other/d; do echo 1 > $file; done
                  - {{uses: {UPLOAD}, with: {{name: folder, path: out}}}}
                  - uses: {UPLOAD}
                    with:
                      name: some
                      path: |
                        out/**/*.txt
                        other/d
                        !out/a.txt
                  - {{uses: {UPLOAD}, with: {{path: nothing}}}}
                  - {{uses: {UPLOAD}, with: {{name: folder, path: out}}, continue-on-error: true}}
                  - {{uses: {UPLOAD}, if: always(), with: {{name: strict, path: no, if-no-files-found: error}}}}
              use:
                needs: make
                if: always()
                runs-on: ubuntu-latest
                steps:
                  - {{uses: {DOWNLOAD}, with: {{name: folder}}}}
                  - {{uses: {DOWNLOAD}, with: {{path: all}}}}
                  - run: find . -type f | sort
                  - {{uses: {DOWNLOAD}, with: {{name: missing}}}}
            """
        },
    )
    hub.dispatch("maria", "w.yml")
    (run,) = hub.pump()
    assert [step.outcome for step in run.job("make").steps] == [
        *("success", "success", "success", "success", "failure", "failure")
    ]
    assert [a.level for a in run.job("make").annotations] == ["warning", "error", "error"]
    files = [line for line in log_of(run, "use").splitlines() if line.startswith("./")]
    assert files == [
        *("./a.txt", "./all/folder/a.txt", "./all/folder/c.log", "./all/folder/deep/b.txt"),
        *("./all/some/other/d", "./all/some/out/deep/b.txt", "./c.log", "./deep/b.txt"),
    ]
    assert "there is no artifact 'missing'" in errors(run, "use")


def test_an_app_token_has_the_requested_permissions_and_ends_with_its_job(tmp_path: Path) -> None:
    def steps(permission: str) -> str:
        return f"""
                steps:
                  - id: app
                    uses: {APP_TOKEN}
                    with:
                      client-id: ${{{{ vars.APP }}}}
                      private-key: ${{{{ secrets.APP_KEY }}}}
                      permission-{permission}
                  - run: gh pr comment 1 --body-file /dev/stdin <<< hello; echo "$GH_TOKEN" > "$KEPT"
                    env: {{GH_TOKEN: '${{{{ steps.app.outputs.token }}}}', GH_REPO: acme/mlops}}
                  - run: echo "token=${{{{ steps.app.outputs.token }}}} of ${{{{ steps.app.outputs.app-slug }}}}"
"""

    kept = tmp_path / "kept"
    hub = hub_with(
        tmp_path,
        {
            "w.yml": f"""
            on: workflow_dispatch
            jobs:
              may:
                runs-on: ubuntu-latest{steps("pull-requests: write")}
              less:
                runs-on: ubuntu-latest{steps("contents: read")}
              more:
                runs-on: ubuntu-latest{steps("actions: write")}
            """
        },
        environ={"KEPT": str(kept)},
    )
    app = hub.register_app("mlops-bot", {"pull-requests": "write", "contents": "write"})
    hub.set_variable("APP", app.client_id)
    hub.set_secret("APP_KEY", app.private_key)
    push(hub.clone(tmp_path / "clone", "maria"), "feature", {"x": "1"})
    hub.open("maria", "feature", "T")
    hub.dispatch("maria", "w.yml")
    (run,) = hub.pump()
    assert run.job("may").conclusion == "success"
    assert "token=*** of mlops-bot" in log_of(run, "may")
    assert [c["author"] for c in hub.server.comments(1)] == ["mlops-bot[bot]"]
    assert "Resource not accessible" in log_of(run, "less")
    assert "permissions requested are not granted" in errors(run, "more")
    with pytest.raises(MlopsError, match="Bad credentials"):
        hub.server.authenticate(kept.read_text().strip())
    with pytest.raises(MlopsError):
        hub.server.app_actor(app.client_id, "wrong")


def test_an_unknown_action_fails_unless_a_function_is_registered(tmp_path: Path) -> None:
    workflow = f"""
    on: workflow_dispatch
    jobs:
      build:
        runs-on: ubuntu-latest
        steps:
          - {{id: b, uses: {BUILD}, with: {{push: true, tags: 'a:1'}}}}
          - run: test "${{{{ steps.b.outputs.digest }}}} $BUILT" = 'sha256:1 yes'
    """
    hub = hub_with(tmp_path / "without", {"w.yml": workflow})
    hub.dispatch("maria", "w.yml")
    (run,) = hub.pump()
    assert "has no stand-in for the action docker/build-push-action" in errors(run, "build")

    seen: list[ActionCall] = []

    def build(call: ActionCall) -> ActionResult:
        seen.append(call)
        return ActionResult({"digest": "sha256:1"}, {"BUILT": "yes"})

    hub = hub_with(tmp_path / "with", {"w.yml": workflow}, handlers={"docker/build-push-action": build})
    hub.dispatch("maria", "w.yml")
    (run,) = hub.pump()
    assert run.conclusion == "success"
    assert seen[0].inputs == {"push": "true", "tags": "a:1"}


def test_the_python_of_the_laptop_stands_in_for_another_minor_version_only(tmp_path: Path) -> None:
    versions = {"3.11": True, "3.x": True, ">=3.11": True, "3.99": True, "2.7": False, "latest": False}
    jobs = "".join(
        f"  v{at}: {{runs-on: ubuntu-latest, steps: [{{uses: {PYTHON}, with: {{python-version: '{version}'}}}}]}}\n"
        for at, version in enumerate(versions)
    )
    path = [Path(__file__).resolve().parents[3] / ".venv" / "bin"]
    hub = hub_with(tmp_path, {"w.yml": "on: workflow_dispatch\njobs:\n" + jobs}, path=path)
    hub.dispatch("maria", "w.yml")
    (run,) = hub.pump()
    assert [job.conclusion == "success" for job in run.jobs] == list(versions.values())
    assert "stands in for 3.99" in log_of(run, "v3")
    assert "expected Python 2.7" in errors(run, "v4")
