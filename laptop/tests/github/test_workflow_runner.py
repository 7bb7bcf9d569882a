"""Runs: order, conditions, outputs, matrices, the environment of steps, logs, time limits."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from laptop.github.hub import Hub
from laptop.github.runner.results import StepProgress, WorkflowRun
from laptop.tests.github.sample_repository import CHECKOUT, ends, hub_with

pytestmark = pytest.mark.slow


def run_once(hub: Hub, workflow: str = "w.yml", **inputs: str) -> WorkflowRun:
    hub.dispatch("maria", workflow, inputs=inputs)
    (run,) = hub.pump()
    assert run.status == "completed"
    return run


def conclusions(run: WorkflowRun) -> dict[str, str]:
    return {job.name: job.conclusion for job in run.jobs}


def log_of(run: WorkflowRun, job: str) -> str:
    log = run.job(job).log
    assert log is not None
    return log.read_text(encoding="utf-8")


HEAD = "on: {workflow_dispatch: {inputs: {word: {default: hi}, dry: {type: boolean, default: true}}}}\n"


def test_jobs_wait_for_their_needs_and_see_outputs_and_results(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path,
        {
            "w.yml": HEAD
            + """
jobs:
  first:
    runs-on: ubuntu-latest
    outputs:
      one: ${{ steps.a.outputs.one }}
      many: ${{ steps.a.outputs.many }}
    steps:
      - id: a
        env: {WORD: '${{ inputs.word }}'}
        run: |
          echo "one=$WORD" >> "$GITHUB_OUTPUT"
          printf 'many<<END\\nx=1\\n\\ny\\nEND\\n' >> "$GITHUB_OUTPUT"
  second:
    needs: first
    if: inputs.dry && needs.first.outputs.one == 'HELLO'
    runs-on: ubuntu-latest
    steps:
      - env: {MANY: '${{ needs.first.outputs.many }}'}
        run: test "$MANY" = "$(printf 'x=1\\n\\ny')"
  breaks:
    needs: first
    runs-on: ubuntu-latest
    steps: [{run: exit 3}]
  skipped: {needs: breaks, runs-on: ubuntu-latest, steps: [{run: 'true'}]}
  after-skipped: {needs: [skipped], runs-on: ubuntu-latest, steps: [{run: 'true'}]}
  cleans: {needs: [breaks, second], if: always(), runs-on: ubuntu-latest, steps: [{run: 'true'}]}
  after-cleans: {needs: cleans, runs-on: ubuntu-latest, steps: [{run: 'true'}]}
  tells:
    needs: [breaks]
    if: failure() && needs.breaks.result == 'failure'
    runs-on: ubuntu-latest
    steps: [{run: 'true'}]
  not-this: {needs: first, if: failure(), runs-on: ubuntu-latest, steps: [{run: 'true'}]}
"""
        },
    )
    run = run_once(hub, word="hello")
    assert run.conclusion == "failure"
    assert conclusions(run) == {
        "first": "success",
        "second": "success",
        "breaks": "failure",
        "skipped": "skipped",
        "after-skipped": "skipped",
        "cleans": "success",
        # As on GitHub, success() considers all jobs upstream.
        "after-cleans": "skipped",
        "tells": "success",
        "not-this": "skipped",
    }
    assert run.job("first").outputs == {"one": "hello", "many": "x=1\n\ny"}
    assert [a.message for a in run.annotations] == ["Process completed with exit code 3."]
    assert hub.run(run.number) == run
    assert hub.server.checks(run.sha)["tells"]["conclusion"] == "success"


def test_steps_follow_their_conditions_and_continue_on_error(tmp_path: Path) -> None:
    seen: list[StepProgress] = []
    hub = hub_with(
        tmp_path,
        {
            "w.yml": HEAD
            + """
jobs:
  a:
    runs-on: ubuntu-latest
    steps:
      - {id: soft, run: exit 1, continue-on-error: true}
      - {name: goes on, if: steps.soft.outcome == 'failure' && steps.soft.conclusion == 'success', run: 'true'}
      - {name: no pipefail without a shell, run: 'false | true'}
      - {name: pipefail, id: hard, shell: bash, run: 'false | true'}
      - {name: left out, run: 'true'}
      - {name: on failure, if: failure() && job.status == 'failure', run: 'true'}
      - {name: always, if: always(), run: 'true'}
"""
        },
        on_step=seen.append,
    )
    run = run_once(hub)
    assert [step.conclusion for step in run.job("a").steps] == [
        *("success", "success", "success", "failure", "skipped", "success", "success")
    ]
    assert run.job("a").steps[0].outcome == "failure"
    assert [progress.step for progress in seen][:3] == ["Run exit 1", "goes on", "no pipefail without a shell"]
    assert str(seen[3]).startswith("✗ .github/workflows/w.yml #1 · a · pipefail")


def test_matrix_legs_have_names_and_fail_fast_by_default(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path,
        {
            "w.yml": HEAD
            + """
jobs:
  plan:
    runs-on: ubuntu-latest
    outputs: {legs: "${{ steps.l.outputs.legs }}"}
    steps: [{id: l, run: "echo 'legs=[\\"x\\",\\"y\\"]' >> $GITHUB_OUTPUT"}]
  each:
    needs: plan
    runs-on: ubuntu-latest
    strategy:
      fail-fast: false
      max-parallel: 1
      matrix: {model: "${{ fromJSON(needs.plan.outputs.legs) }}"}
    steps: [{run: "test ${{ matrix.model }} = y; test ${{ strategy.job-total }} = 2"}]
  named:
    name: Deploy ${{ matrix.where }}
    runs-on: ubuntu-latest
    strategy: {max-parallel: 1, matrix: {where: [a, b]}}
    steps: [{run: exit 1}]
  tolerated:
    runs-on: ubuntu-latest
    continue-on-error: ${{ matrix.n == 1 }}
    strategy: {matrix: {n: [1, 2]}}
    steps: [{run: "test ${{ matrix.n }} = 2"}]
  after: {needs: tolerated, runs-on: ubuntu-latest, steps: [{run: 'true'}]}
  empty:
    runs-on: ubuntu-latest
    strategy: {matrix: {include: "${{ fromJSON('[]') }}"}}
    steps: [{run: 'true'}]
"""
        },
    )
    run = run_once(hub)
    found = conclusions(run)
    assert (found["each (x)"], found["each (y)"]) == ("failure", "success")
    # Either may start first; the other one is stopped before it runs.
    assert sorted((found["Deploy a"], found["Deploy b"])) == ["cancelled", "failure"]
    assert (found["tolerated (1)"], found["after"], found["empty"]) == ("failure", "success", "failure")


def test_a_step_has_a_clean_environment_without_access_to_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PRIVATE_TOKEN", "hunter2")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOPERATOR")
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = AKIAOPERATOR\n", encoding="utf-8")
    given = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_SESSION_TOKEN": "operator",
        "MLOPS_HOME": "/somewhere",
    }
    hub = hub_with(
        tmp_path,
        {
            "w.yml": HEAD
            + """
env: {LEVEL: workflow, ONLY: '${{ github.event_name }}'}
jobs:
  a:
    runs-on: ubuntu-latest
    env: {LEVEL: job}
    defaults: {run: {working-directory: sub}}
    steps:
      - {working-directory: ., run: mkdir sub}
      - run: |
          env | sort
          echo "level=$LEVEL ${{ env.LEVEL }} here=$(basename "$PWD") only=$ONLY"
          echo "file=$(wc -c < "$AWS_SHARED_CREDENTIALS_FILE")"
          echo "LEVEL=exported" >> "$GITHUB_ENV"
          echo "$PWD/tools" >> "$GITHUB_PATH"
          mkdir tools; printf '#!/bin/sh\\necho tool speaks' > tools/mytool; chmod +x tools/mytool
        env: {LEVEL: step}
      - run: |
          echo "then=$LEVEL ${{ env.LEVEL }}"; mytool
          python3 -c 'import json, os; print(json.load(open(os.environ["GITHUB_EVENT_PATH"]))["inputs"])'
      - run: echo "GITHUB_SHA=x" >> "$GITHUB_ENV"
"""
        },
        environ=given,
    )
    run = run_once(hub)
    log = log_of(run, "a")
    assert "level=step step here=sub only=workflow_dispatch" in log
    assert "then=exported exported" in log
    assert "tool speaks" in log
    assert "{'word': 'hi', 'dry': 'true'}" in log
    assert "AWS_ENDPOINT_URL=http://127.0.0.1:1" in log
    assert "MLOPS_HOME=/somewhere" in log
    assert "CI=true" in log
    assert "file=0" in log
    for secret in ("hunter2", "AKIAOPERATOR", "operator", os.environ["HOME"] + "\n"):
        assert secret not in log
    assert "Can't set GITHUB_SHA" in run.annotations[-1].message
    assert list((hub.server.folder / "work").iterdir()) == []


def test_a_workflow_sets_any_variable_but_those_of_the_runner(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path,
        {
            "w.yml": HEAD
            + """
jobs:
  a:
    runs-on: ubuntu-latest
    steps:
      - run: echo "first=$CI $GITHUB_ACTIONS"; mkdir tools home; echo "$PWD/tools" >> "$GITHUB_PATH"
      - run: echo "second=$CI ${{ env.CI }} home=$(basename "$HOME") path=${PATH##*/workspace/}"
        env: {CI: 'false', HOME: "${{ github.workspace }}/home", PATH: '/bin:/usr/bin:/x', GITHUB_ACTIONS: no}
      - run: echo "third=$CI $GITHUB_ACTIONS"; echo CI=false >> "$GITHUB_ENV"
      - run: echo "fourth=$CI"; echo '::set-output name=x::1'
        id: old
      - run: echo "fifth=${{ steps.old.outputs.x }}"
      - run: head -c 1100000 /dev/zero | tr '\\0' x >> "$GITHUB_STEP_SUMMARY"
      - run: echo short >> "$GITHUB_STEP_SUMMARY"; printf '\\357\\273\\277after=bom\\n' >> "$GITHUB_ENV"
      - run: echo "sixth=$after"
"""
        },
    )
    run = run_once(hub)
    log = log_of(run, "a")
    said = ("first=true true", "second=false false home=home path=tools:/bin:/usr/bin:/x", "third=true true")
    for line in (*said, "fourth=false", "fifth=1", "sixth=bom"):
        assert line in log.splitlines()
    assert (run.conclusion, run.job("a").summary) == ("success", "short\n")
    assert [(each.level, each.message.split(" ")[0]) for each in run.annotations] == [
        ("warning", "The"),
        ("error", "$GITHUB_STEP_SUMMARY"),
    ]


def test_an_untrusted_title_is_never_run_as_code(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    hub = hub_with(
        tmp_path,
        {
            "w.yml": """
            on: workflow_dispatch
            run-name: Check ${{ github.event.inputs.title }}
            jobs:
              a:
                runs-on: ubuntu-latest
                steps:
                  - run: printf 'title=%s\\n' "$TITLE"
                    env: {TITLE: '${{ github.event.inputs.title }}'}
            """.replace("on: workflow_dispatch", "on: {workflow_dispatch: {inputs: {title: {}}}}")
        },
    )
    title = f"$(touch {marker}) `touch {marker}` ; touch {marker} ${{{{ secrets.KEY }}}}"
    run = run_once(hub, title=title)
    assert run.conclusion == "success"
    assert f"title={title}" in log_of(run, "a")
    assert run.title == f"Check {title}"
    assert not marker.exists()


def test_secrets_never_reach_a_log_annotation_summary_or_output(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path,
        {
            "w.yml": HEAD
            + """
jobs:
  a:
    name: Job ${{ vars.COLOUR }}
    runs-on: ubuntu-latest
    environment: prod
    outputs: {leak: "${{ steps.s.outputs.leak }}", fine: "${{ steps.s.outputs.fine }}"}
    steps:
      - id: s
        env: {KEY: "${{ secrets.KEY }}", DEEP: "${{ secrets.DEEP }}", TOKEN: "${{ github.token }}"}
        run: |
          echo "key=$KEY inline=${{ secrets.KEY }}"; echo "$DEEP"; printf '%s' "$KEY" | base64; echo "token=$TOKEN"
          part=gro; echo "::add-mask::${part}wn"; echo "now ${part}wn"
          echo "::error file=a.py,line=3,title=T::bad $KEY%0Anext"; echo "::notice::fine"
          echo "sum $KEY" >> "$GITHUB_STEP_SUMMARY"
          echo "leak=a-$KEY" >> "$GITHUB_OUTPUT"; echo "fine=1" >> "$GITHUB_OUTPUT"
          echo "::stop-commands::zz"; echo "::error::not one"; echo "::zz::"; echo "::warning::again"
      - name: use ${{ secrets.KEY }}
        run: echo '::set-env name=x::1'
"""
        },
    )
    hub.set_secret("KEY", "s3cret-value")
    hub.set_secret("DEEP", "line one of it\nline two of it", environment="prod")
    hub.set_variable("colour", "blue")
    run = run_once(hub)
    job = run.job("Job blue")
    everything = log_of(run, "Job blue") + (run.folder / "run.json").read_text() + str(run)
    for secret in ("s3cret-value", "line one of it", "line two", "ghs_", "czNjcmV0LXZhbHVl", "now grown"):
        assert secret not in everything
    assert "key=*** inline=***" in everything
    assert job.outputs == {"fine": "1"}
    assert job.summary == "sum ***\n"
    errors = [a for a in job.annotations if a.level == "error"]
    assert (errors[0].message, errors[0].file, errors[0].line, errors[0].title) == ("bad ***\nnext", "a.py", "3", "T")
    assert "disabled the command ::set-env::" in errors[1].message
    assert [a.message for a in job.annotations if a.level in ("notice", "warning")] == [
        "fine",
        "again",
        "Skip output 'leak' since it may contain secret.",
    ]
    assert job.steps[1].name == "use ***"
    assert "s3cret-value" not in (hub.server.folder / "github.json").read_text()


def test_a_step_that_times_out_is_killed_with_all_its_processes(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path,
        {
            "w.yml": HEAD
            + """
jobs:
  step:
    runs-on: ubuntu-latest
    steps:
      - {run: 'sleep 300 & echo $! > "$GITHUB_WORKSPACE/../../../pid"; sleep 300', timeout-minutes: 0.005}
      - {if: always(), run: echo cleaned}
  job:
    runs-on: ubuntu-latest
    timeout-minutes: 0.005
    steps:
      - {run: sleep 300}
      - {if: always(), run: echo never}
  left:
    runs-on: ubuntu-latest
    steps:
      - {run: 'setsid sleep 300 & echo $! > "$GITHUB_WORKSPACE/../../../left"'}
      - {run: echo next}
"""
        },
    )
    started = time.monotonic()
    run = run_once(hub)
    assert time.monotonic() - started < 5
    assert conclusions(run) == {"step": "failure", "job": "cancelled", "left": "success"}
    assert "cleaned" in log_of(run, "step")
    assert "timeout-minutes" in run.job("job").annotations[0].message
    for name in ("pid", "left"):
        assert ends((hub.server.folder / name).read_text())


def test_a_composite_action_takes_inputs_and_returns_outputs(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path,
        {
            ".github/actions/setup/action.yml": """
            inputs: {word: {required: true}, mark: {default: '!'}}
            outputs: {said: {value: "${{ steps.say.outputs.said }}"}}
            runs:
              using: composite
              steps:
                - id: say
                  shell: bash
                  run: |
                    echo "said=${{ inputs.word }}${{ inputs.mark }}$OUTER" >> "$GITHUB_OUTPUT"
                    cat "$GITHUB_ACTION_PATH/note"
                - {if: failure(), shell: bash, run: exit 1}
            """,
            ".github/actions/setup/note": "a note\n",
            "w.yml": HEAD
            + f"""
jobs:
  a:
    runs-on: ubuntu-latest
    steps:
      - uses: {CHECKOUT}
      - {{uses: ./.github/actions/setup, id: s, with: {{word: hi}}, env: {{OUTER: '?'}}}}
      - run: test '${{{{ steps.s.outputs.said }}}}' = 'hi!?'
      - {{uses: ./.github/actions/setup, with: {{wrod: hi}}}}
  early:
    runs-on: ubuntu-latest
    steps: [{{uses: ./.github/actions/setup, with: {{word: hi}}}}]
""",
        },
    )
    run = run_once(hub)
    assert "a note" in log_of(run, "a")
    assert [step.conclusion for step in run.job("a").steps] == ["success", "success", "success", "failure"]
    assert "has no input 'wrod'" in run.job("a").annotations[0].message
    assert "Can't find 'action.yml'" in run.job("early").annotations[0].message


def test_an_invalid_workflow_file_becomes_a_failed_run_with_the_reason(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path, {"bad.yml": "on: {schedule: [{cron: '0 0 * * *'}]}\njobs: {a: {runs-on: x, services: {}}}\n"}
    )
    hub.tick("0 0 * * *")
    (run,) = hub.pump()
    assert run.conclusion == "startup_failure"
    assert ".github/workflows/bad.yml:2: jobs.a.services" in run.problems[0]


def test_an_expression_that_fails_at_run_time_fails_its_job(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path,
        {
            "w.yml": HEAD
            + """
jobs:
  step: {runs-on: ubuntu-latest, steps: [{run: "${{ fromJSON('{') }}"}, {if: always(), run: echo on}]}
  job: {if: "fromJSON('{')", runs-on: ubuntu-latest, steps: [{run: 'true'}]}
  matrix: {runs-on: ubuntu-latest, strategy: {matrix: {a: "${{ fromJSON('1') }}"}}, steps: [{run: 'true'}]}
  output:
    runs-on: ubuntu-latest
    steps: [{run: 'echo nonsense >> "$GITHUB_OUTPUT"'}]
  nowhere:
    runs-on: ubuntu-latest
    steps: [{run: 'true', working-directory: nowhere}]
"""
        },
    )
    run = run_once(hub)
    assert set(conclusions(run).values()) == {"failure"}
    assert "fromJSON(): invalid JSON" in run.job("job").annotations[0].message
    assert "Invalid format 'nonsense'" in run.job("output").annotations[0].message


def test_a_schedule_starts_the_workflows_with_its_cron(tmp_path: Path) -> None:
    hub = hub_with(
        tmp_path,
        {
            "w.yml": """
            on: {schedule: [{cron: '5 4 * * *'}, {cron: '0 0 * * 0'}]}
            jobs: {a: {runs-on: ubuntu-latest, steps: [{run: "echo ${{ github.event.schedule }}"}]}}
            """
        },
    )
    hub.tick("1 1 1 1 1")
    assert hub.pump() == []
    hub.tick("0 0 * * 0")
    (run,) = hub.pump()
    assert "0 0 * * 0" in log_of(run, "a")
