"""Run a Pulumi program for the language host, in the program's own interpreter.

A script, not a module to import: it needs the Pulumi SDK and nothing else of this repository.
Run `python program_script.py --help` for its arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import runpy
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ERROR_WAS_SHOWN = 32
"""Exit code: the program failed, and the user has seen the error."""


def main() -> int:
    """Run the program and return the exit code: 0, 1 after a `RunError`, 32 after any other exception."""
    arguments = _parser().parse_args()
    try:
        import pulumi
        from pulumi.runtime import Settings, config, configure, run_in_stack
    except ImportError as error:
        print(
            f"the Pulumi SDK cannot be imported by {sys.executable}: {error}\n"
            "  fix: install the requirements of the project: make setup",
            file=sys.stderr,
        )
        return 1
    config.set_all_config(config.get_config_env(), config.get_config_secret_keys_env())
    configure(
        Settings(
            project=arguments.project,
            stack=arguments.stack,
            monitor=arguments.monitor,
            engine=arguments.engine,
            parallel=arguments.parallel,
            dry_run=arguments.dry_run,
            organization=arguments.organization,
            root_directory=arguments.root,
        )
    )
    program = Path(arguments.program).absolute()
    os.chdir(arguments.pwd)
    sys.argv = [str(program), *arguments.arguments]
    # After a failure the SDK leaves futures unread. What asyncio says about them does not help the author.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    executor = ThreadPoolExecutor(max(arguments.parallel, 1) * 4, thread_name_prefix="registration")
    loop.set_default_executor(executor)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(run_in_stack(lambda: _run(program)))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return 1
    except Exception as error:
        pulumi.log.error(f"Program failed with an unhandled exception:\n{_traceback_of(error, program)}")
        return ERROR_WAS_SHOWN
    except KeyboardInterrupt:  # the CLI ends its plugins so
        return 1
    finally:
        executor.shutdown(wait=True)
        loop.close()
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _run(program: Path) -> None:
    runpy.run_path(str(program), run_name="__main__")


def _traceback_of(error: Exception, program: Path) -> str:
    """Format an exception from the first frame in the program on; all frames if there is none."""
    folder = program if program.is_dir() else program.parent
    frames = traceback.extract_tb(error.__traceback__)
    outer = next((at for at, frame in enumerate(frames) if Path(frame.filename).is_relative_to(folder)), 0)
    return "".join(traceback.format_exception(error, limit=outer - len(frames)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run a Pulumi program.")
    parser.add_argument("--project", required=True, help="name of the project")
    parser.add_argument("--stack", required=True, help="name of the stack")
    parser.add_argument("--organization", default="organization", help="name of the organization")
    parser.add_argument("--root", help="folder with Pulumi.yaml")
    parser.add_argument("--pwd", required=True, help="working directory")
    parser.add_argument("--monitor", required=True, help="address of the resource monitor")
    parser.add_argument("--engine", required=True, help="address of the engine")
    parser.add_argument("--parallel", type=int, default=16, help="maximum number of registrations at once")
    parser.add_argument("--dry-run", action="store_true", help="the run is a preview")
    parser.add_argument("program", help="folder with __main__.py, or a file")
    parser.add_argument("arguments", nargs="*", help="arguments of the program")
    return parser


if __name__ == "__main__":
    sys.exit(main())
