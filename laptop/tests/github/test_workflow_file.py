"""Reading workflow files: valid ones, and errors with file, line and key."""

from __future__ import annotations

import textwrap

import pytest

from laptop.github.workflow.composite_action import read_action
from laptop.github.workflow.definition import Workflow
from laptop.github.workflow.workflow_file import read_workflow
from laptop.tests.github.sample_repository import CHECKOUT
from pipelines.declarations.errors import DeclarationError, Problem

PATH = ".github/workflows/x.yml"


def read(text: str) -> Workflow:
    return read_workflow(textwrap.dedent(text).lstrip("\n").encode(), PATH)


def refused(text: str) -> tuple[Problem, ...]:
    with pytest.raises(DeclarationError) as caught:
        read(text)
    return caught.value.problems


FULL = f"""
    name: Deploy
    run-name: Deploy ${{{{ inputs.model }}}} by ${{{{ github.actor }}}}
    on:
      push:
        branches: [main, 'releases/**', '!releases/old']
        paths: ['models/*/releases/*.yaml']
      pull_request:
        types: [opened, synchronize]
      merge_group:
      workflow_dispatch:
        inputs:
          model: {{description: Which one, required: true}}
          dry: {{type: boolean, default: false}}
          environment: {{type: choice, options: [dev, prod]}}
      repository_dispatch:
        types: [drift]
      schedule:
        - cron: '17 3 * * 1-5'
    permissions:
      contents: read
      id-token: write
    env:
      MODEL: ${{{{ inputs.model }}}}
    defaults:
      run: {{shell: bash, working-directory: models}}
    concurrency:
      group: deploy-${{{{ github.ref }}}}
      cancel-in-progress: false
      queue: max
    jobs:
      plan:
        runs-on: ubuntu-24.04
        outputs:
          legs: ${{{{ steps.list.outputs.legs }}}}
        steps:
          - id: list
            run: echo legs=[] >> "$GITHUB_OUTPUT"
      deploy:
        name: Deploy (${{{{ matrix.model }}}})
        needs: [plan]
        if: ${{{{ !cancelled() && needs.plan.result == 'success' }}}}
        runs-on: ubuntu-latest
        environment: {{name: 'prod', url: "${{{{ steps.up.outputs.url }}}}"}}
        permissions: {{}}
        timeout-minutes: 30
        continue-on-error: ${{{{ matrix.model == 'x' }}}}
        strategy:
          fail-fast: false
          max-parallel: 1
          matrix:
            model: ${{{{ fromJSON(needs.plan.outputs.legs) }}}}
            include: [{{model: y, extra: 1}}]
        env: {{KEY: "${{{{ secrets.KEY }}}}"}}
        steps:
          - uses: {CHECKOUT}
            with: {{fetch-depth: 0, persist-credentials: false}}
          - uses: ./.github/actions/setup
          - id: up
            name: Up
            if: github.event_name != 'pull_request'
            run: make up
            shell: bash
            working-directory: .
            timeout-minutes: 5
            continue-on-error: true
            env: {{TITLE: "${{{{ github.event.pull_request.title }}}}", HASH: "${{{{ hashFiles('**/*.txt') }}}}"}}
"""


def test_a_workflow_is_read_as_written() -> None:
    workflow = read(FULL)
    assert workflow.name == "Deploy"
    assert set(workflow.triggers) == {
        *("push", "pull_request", "merge_group", "workflow_dispatch", "repository_dispatch", "schedule")
    }
    push = workflow.triggers["push"]
    assert push.branches is not None
    assert [b for b in ("main", "releases/1/2", "releases/old", "x") if push.branches.accept(b)] == [
        "main",
        "releases/1/2",
    ]
    assert [item.kind for item in workflow.triggers["workflow_dispatch"].inputs] == ["string", "boolean", "choice"]
    assert workflow.triggers["schedule"].crons == ("17 3 * * 1-5",)
    assert workflow.permissions == {"contents": "read", "id-token": "write"}
    assert workflow.concurrency is not None
    assert workflow.concurrency.queue == "max"
    deploy = workflow.jobs["deploy"]
    assert deploy.needs == ("plan",)
    assert deploy.permissions == {}
    assert [step.number for step in deploy.steps] == [1, 2, 3]
    assert deploy.steps[0].inputs["fetch-depth"].text == "0"
    assert deploy.line == 38


JOB = """
    on: push
    jobs:
      a:
        runs-on: ubuntu-latest
        steps:
          - run: 'true'
"""


def job_with(extra: str) -> str:
    return JOB.replace("        steps:", f"        {extra}\n        steps:")


def step_with(extra: str) -> str:
    return JOB + "            " + extra.replace("\n", "\n            ") + "\n"


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        (JOB.replace("on: push", "on: pull_request_target"), 1, "on", "pull_request_target"),
        (JOB.replace("on: push", "on: [push, workflow_call]"), 1, "on", "workflow_call"),
        (JOB.replace("on: push", "on: {push: {branch: [x]}}"), 1, "on.push.branch", "did you mean 'branches'"),
        (JOB.replace("on: push", "on: {pull_request: {types: [pushed]}}"), 1, "on.pull_request.types", "pushed"),
        (JOB.replace("on: push", "on: {push: {paths: ['!x']}}"), 1, "on.push.paths", "only '!'"),
        (JOB.replace("on: push", "on: {push: {paths: ['[']}}"), 1, "on.push.paths", "pattern"),
        (
            JOB.replace("on: push", "on: {push: {paths: [a], paths-ignore: [b]}}"),
            1,
            "on.push.paths-ignore",
            "either",
        ),
        (JOB.replace("on: push", "on: {schedule: [{cron: daily}]}"), 1, "on.schedule[0].cron", "five fields"),
        (JOB.replace("on: push", "on: push\n    permisions: {}"), 2, "permisions", "did you mean 'permissions'"),
        (JOB.replace("on: push", "on: push\n    permissions: {content: read}"), 2, "permissions.content", "contents"),
        (JOB.replace("on: push", "on: push\n    permissions: {contents: all}"), 2, "permissions.contents", "read"),
        (JOB.replace("on: push", "on: push\n    permissions: {id-token: read}"), 2, "permissions.id-token", "write"),
        (JOB.replace("on: push", "on: push\n    defaults: {run: {shell: pwsh}}"), 2, "defaults.run.shell", "bash"),
        (
            JOB.replace("on: push", "on: push\n    concurrency: {group: x, cancel-in-progress: true, queue: max}"),
            2,
            "concurrency.queue",
            "without cancel-in-progress",
        ),
        (JOB.replace("ubuntu-latest", "windows-latest"), 4, "jobs.a.runs-on", "ubuntu"),
        (JOB.replace("ubuntu-latest", "{group: big}"), 4, "jobs.a.runs-on", "ubuntu"),
        (job_with("container: debian"), 5, "jobs.a.container", "unknown key"),
        (job_with("services: {}"), 5, "jobs.a.services", "unknown key"),
        (job_with("needs: b"), 5, "jobs.a.needs", "unknown job 'b'"),
        (job_with("needs: a"), 5, "jobs.a.needs", "cycle"),
        (job_with("if: ${{ github.ref }} == 'x'"), 5, "jobs.a.if", "always true"),
        (job_with("if: secrets.KEY != ''"), 5, "jobs.a.if", "'secrets' is not available"),
        (job_with("if: steps.x.outputs.y"), 5, "jobs.a.if", "'steps' is not available"),
        (job_with("timeout-minutes: soon"), 5, "jobs.a.timeout-minutes", "number"),
        (job_with("env: {A: '${{ env.B }}'}"), 5, "jobs.a.env.A", "'env' is not available"),
        (job_with("env: {A: '${{ github.shaa }}'}"), 5, "jobs.a.env.A", "github.shaa does not exist"),
        (job_with("env: {A: '${{ needs.b.result }}'}"), 5, "jobs.a.env.A", "needs.b does not exist"),
        (job_with("env: {A: '${{ inputs.b }}'}"), 5, "jobs.a.env.A", "inputs.b does not exist"),
        (job_with("env: {A: '${{ matrix.b }}'}"), 5, "jobs.a.env.A", "matrix.b does not exist"),
        (job_with("env: {A: '${{ nope() }}'}"), 5, "jobs.a.env.A", "unknown function 'nope'"),
        (job_with("env: {A: '${{ github.ref'}"), 5, "jobs.a.env.A", "not closed"),
        (job_with("outputs: {o: '${{ steps.s.outputs.o }}'}"), 5, "jobs.a.outputs.o", "steps.s does not exist"),
        (job_with("strategy: {matrix: {os: linux}}"), 5, "jobs.a.strategy.matrix.os", "list"),
        (job_with("strategy: {matrix: {os: [x]}, parallel: 2}"), 5, "jobs.a.strategy.parallel", "max-parallel"),
        (step_with("shell: python"), 7, "jobs.a.steps[0].shell", "bash"),
        (step_with("continue-on-error: maybe"), 7, "jobs.a.steps[0].continue-on-error", "boolean"),
        (step_with("background: true"), 7, "jobs.a.steps[0].background", "unknown key"),
        (step_with("with: {a: b}"), 7, "jobs.a.steps[0].with", "only with uses"),
        (step_with("- uses: actions/checkout@v4").replace("            - uses", "      - uses"), 7, "", ""),
    ],
)
def test_an_unsupported_key_is_an_error_with_file_line_and_key(text: str, line: int, key: str, words: str) -> None:
    if not key:
        text, key, words = (
            f"{JOB}          - uses: actions/checkout@v4\n",
            "jobs.a.steps[1].uses",
            "pinned by its full commit",
        )
    problems = refused(text)
    assert len(problems) == 1, problems
    assert (str(problems[0].file), problems[0].line, problems[0].key) == (PATH, line, key)
    assert words in str(problems[0])


def test_all_problems_of_a_file_are_reported_together() -> None:
    text = job_with("container: x").replace("on: push", "on: push\n    nam: x")
    assert [problem.key for problem in refused(text)] == ["nam", "jobs.a.container"]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("- {}", "either 'run' or 'uses'"),
        (f"- {{run: x, uses: '{CHECKOUT}'}}", "both"),
        ("- uses: docker://alpine", "owner/action@<commit>"),
        ("- uses: actions/checkout", "owner/action@<commit>"),
        ("- uses: ./../x", "inside the repository"),
        ("- uses: ./x@v1", "without a version"),
        ("- uses: ./", "inside the repository"),
        ("- uses: $/x", "owner/action@<commit>"),
        ("- {uses: ./x, working-directory: y}", "only with run"),
        ("- {id: a b, run: x}", "an id of letters"),
    ],
)
def test_an_invalid_step_is_an_error(step: str, words: str) -> None:
    problems = refused(JOB.replace("- run: 'true'", step))
    assert any(words in str(problem) for problem in problems), problems


def test_a_step_only_sees_earlier_steps() -> None:
    text = JOB + "          - run: echo ${{ steps.later.outcome }}\n          - {id: later, run: x}\n"
    assert "steps.later does not exist" in str(refused(text)[0])


def test_an_undeclared_output_of_a_needed_job_is_an_error() -> None:
    text = JOB + "      b:\n        needs: a\n        runs-on: ubuntu-latest\n"
    text += "        steps: [{run: 'echo ${{ needs.a.outputs.x }}'}]\n"
    assert "the job 'a' has no output 'x'" in str(refused(text)[0])


@pytest.mark.parametrize(
    "text",
    ["a: &x 1\nb: *x\n", "a: 1\na: 2\n", "a: !!python/object:os.system x\n", "[", "a: {<<: {b: 1}}\n", "\x00"],
)
def test_aliases_tags_and_duplicate_keys_are_errors(text: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        read_workflow(text.encode(), PATH)
    assert PATH in str(caught.value)


def test_on_is_a_key_and_quoted_versions_keep_their_zero() -> None:
    workflow = read(JOB + "            env: {V: '3.10', ON: on, YES: yes, N: 0x10}\n")
    env = workflow.jobs["a"].steps[0].env
    assert [env[name].text for name in ("V", "ON", "YES", "N")] == ["3.10", "on", "yes", "16"]


ACTION = """
    name: Setup
    inputs:
      python: {description: Which, default: '3.11'}
    outputs:
      where: {value: "${{ steps.s.outputs.where }}"}
    runs:
      using: composite
      steps:
        - id: s
          shell: bash
          run: echo ${{ inputs.python }}
"""


def action(text: str) -> None:
    read_action(textwrap.dedent(text).encode(), "x/action.yml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("using: composite", "using: node24", "composite"),
        ("          shell: bash\n", "", "shell"),
        ("inputs.python }}", "secrets.X }}", "'secrets' is not available"),
        ("inputs.python }}", "inputs.pyton }}", "inputs.pyton does not exist"),
        ("steps.s.outputs", "steps.t.outputs", "steps.t does not exist"),
    ],
)
def test_an_unsupported_action_is_an_error(old: str, new: str, words: str) -> None:
    action(ACTION)
    with pytest.raises(DeclarationError) as caught:
        action(ACTION.replace(old, new))
    assert words in str(caught.value)


def test_a_job_may_use_an_environment_without_deploying() -> None:
    text = """
        on: push
        jobs:
          a:
            runs-on: ${{ vars.RUNNER || 'ubuntu-24.04' }}
            environment: {name: preview, deployment: DEPLOYS}
            steps: [{run: ls}]
    """
    environment = read(text.replace("DEPLOYS", "false")).jobs["a"].environment
    assert environment is not None
    assert (environment.name.text, environment.deployment.text) == ("preview", "False")
    assert refused(text.replace("DEPLOYS", "sometimes"))[0].key == "jobs.a.environment.deployment"
