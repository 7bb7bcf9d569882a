"""`python -m pipelines.data ingest <dataset>`: what the CronJob `ingest-<dataset>` runs."""

from __future__ import annotations

import argparse
import logging
import sys
from importlib.abc import MetaPathFinder

from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.startup import relax_gc


def main(arguments: list[str] | None = None) -> int:
    """Run the job.

    Returns:
        0 when every file that had to be taken in was, whether or not rows of it are in quarantine; 1 when a file was
        refused as a whole, or the job could not be done.
    """
    parser = argparse.ArgumentParser(prog="python -m pipelines.data", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    command = commands.add_parser("ingest", help="take in what has landed for a dataset")
    command.add_argument("dataset", help="a contract in data-contracts/")
    dataset = parser.parse_args(arguments).dataset
    # What it cannot tidy up after a lost commit stays for the table's own maintenance; it has no right to delete.
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    try:
        contract = Project.find().contract(dataset)
        return _ingest(EnvironmentDescriptor.from_environ(), contract)
    except MlopsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _ingest(descriptor: EnvironmentDescriptor, contract: Contract) -> int:
    from botocore.exceptions import BotoCoreError, ClientError

    from pipelines.data.ingest import ingest

    try:
        records = ingest(descriptor, contract, lambda line: print(line, flush=True))
    except (BotoCoreError, ClientError, OSError) as error:
        raise MlopsError(
            f"ingest of {contract.name} in {descriptor.name} stopped: {error}",
            fix="nothing is half done; see that the job's role may do this, and run it again",
        ) from error
    refused = [record.file for record in records if record.verdict == "refused"]
    if refused:
        what = f"{len(refused)} of {len(records)} files refused: {', '.join(refused)}"
        raise MlopsError(
            what, fix="put corrected files into landing; a corrected file of the same name replaces the old"
        )
    return 0


class _Absent(MetaPathFinder):
    """Arrow imports pandas where it is installed, for conversions that this job never makes: a third of its start."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ImportError(name)


if __name__ == "__main__":
    relax_gc()
    sys.meta_path.insert(0, _Absent())
    sys.exit(main())
