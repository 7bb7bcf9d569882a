"""The twins of remote actions."""

from __future__ import annotations

from pathlib import Path

import pytest

from laptop.github.actions import Answer, Call
from laptop.github.results import Run
from laptop.tests.github.toys import APP_TOKEN, CHECKOUT, DOWNLOAD, UPLOAD, git, hub_with, push
from pipelines.declarations.errors import MlopsError

BUILD = "docker/build-push-action@53b7df96c91f9c12dcc8a07bcb9ccacbed38856a"
PYTHON = "actions/setup-python@5fda3b95a4ea91299a34e894583c3862153e4b97"


def errors(run: Run, job: str) -> str:
    return " ".join(annotation.message for annotation in run.job(job).annotations)


def log_of(run: Run, job: str) -> str:
    log = run.job(job).log
    assert log is not None
    return log.read_text(encoding="utf-8")


def test_checkout_is_as_deep_as_asked_and_pushes_only_with_its_token(tmp_path: Path) -> None:
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
    made = hub.forge.commit_of("made")
    assert made is not None
    assert [step.conclusion for step in run.job("helper").steps] == ["success", "success", "success", "failure"]
    assert hub.forge.commit_of("helped") == hub.forge.commit_of("set-up") == run.sha
    assert hub.forge.commit_of("denied") is None
    twice = next(job for job in run.jobs if job.id == "twice")
    assert twice.conclusion == "success"
    assert "transport 'https' not allowed" in log_of(run, "network")
    assert "does not know the input 'submodules'" in errors(run, "refused")
    assert "Resource not accessible" in errors(run, "none")


def test_artifacts_go_from_job_to_job(tmp_path: Path) -> None:
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


def test_an_apps_token_may_what_was_asked_for_and_ends_with_its_job(tmp_path: Path) -> None:
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
    assert [c["author"] for c in hub.forge.comments(1)] == ["mlops-bot[bot]"]
    assert "Resource not accessible" in log_of(run, "less")
    assert "permissions requested are not granted" in errors(run, "more")
    with pytest.raises(MlopsError, match="Bad credentials"):
        hub.forge.authenticate(kept.read_text().strip())
    with pytest.raises(MlopsError):
        hub.forge.app_actor(app.client_id, "wrong")


def test_an_action_without_a_twin_is_refused_and_a_registered_function_stands_for_it(tmp_path: Path) -> None:
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
    assert "docker/build-push-action has no twin on the laptop" in errors(run, "build")

    seen: list[Call] = []

    def build(call: Call) -> Answer:
        seen.append(call)
        return Answer({"digest": "sha256:1"}, {"BUILT": "yes"})

    hub = hub_with(tmp_path / "with", {"w.yml": workflow}, twins={"docker/build-push-action": build})
    hub.dispatch("maria", "w.yml")
    (run,) = hub.pump()
    assert run.conclusion == "success"
    assert seen[0].inputs == {"push": "true", "tags": "a:1"}


def test_python_must_be_the_wanted_one_and_is_not_downloaded(tmp_path: Path) -> None:
    versions = {"3.11": True, "3.x": True, ">=3.11": True, "2.7": False, "3.99": False, "latest": False}
    jobs = "".join(
        f"  v{at}: {{runs-on: ubuntu-latest, steps: [{{uses: {PYTHON}, with: {{python-version: '{version}'}}}}]}}\n"
        for at, version in enumerate(versions)
    )
    path = [Path(__file__).resolve().parents[3] / ".venv" / "bin"]
    hub = hub_with(tmp_path, {"w.yml": "on: workflow_dispatch\njobs:\n" + jobs}, path=path)
    hub.dispatch("maria", "w.yml")
    (run,) = hub.pump()
    assert [job.conclusion == "success" for job in run.jobs] == list(versions.values())
    assert "Python 3.99 is wanted" in errors(run, "v4")
