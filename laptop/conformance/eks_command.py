"""Stand-in for `aws eks update-kubeconfig`: EKS is emulated without a cluster, so it names a cluster that runs here.

Run `python -m laptop.conformance.eks_command KUBECONFIG AWS …`. The account checks that the caller may describe the
cluster. Every other command goes to the AWS CLI at the path AWS.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pipelines.declarations.atomic_files import write_atomically


def main(kubeconfig: Path, aws: str, arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    if arguments[:2] != ["eks", "update-kubeconfig"]:
        os.execv(aws, [aws, *arguments])  # noqa: S606 - replaces this process, without a shell
    parser = argparse.ArgumentParser("aws eks update-kubeconfig")
    parser.add_argument("--name", required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--kubeconfig", type=Path, default=Path(os.environ.get("KUBECONFIG", "~/.kube/config")))
    options = parser.parse_args(arguments[2:])
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        boto3.client("eks", region_name=options.region).describe_cluster(name=options.name)
    except (BotoCoreError, ClientError) as error:
        print(error, file=sys.stderr)
        return 254  # as the AWS CLI does when a service refuses
    write_atomically(options.kubeconfig.expanduser(), kubeconfig.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
