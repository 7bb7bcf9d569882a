"""Stand-in for `aws eks`: EKS is emulated without clusters, so its commands name one that runs here.

Run `python -m laptop.conformance.eks_command KUBECONFIG AWS …`. `eks create-access-entry` puts a role into Kubernetes
groups. `eks update-kubeconfig` signs the caller in: the administrator of the account as the administrator of the
cluster, a role as the member of its groups, and a role without an access entry as nobody. The account checks that the
caller may describe the cluster. Every other command goes to the AWS CLI at the path AWS.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.declarations.atomic_files import write_atomically

GROUP_TOKENS = "group-tokens.json"
"""File beside the kubeconfig of a control plane: Kubernetes group → bearer token of its only member."""

ACCESS_ENTRIES = "access-entries.json"
"""File beside the kubeconfig: name of a cluster → ARN of a principal → its Kubernetes groups."""

_REFUSED = 254  # exit status of the AWS CLI when a service refuses
_NOBODY = "no-access-entry"

Entries = dict[str, dict[str, list[str]]]


def main(kubeconfig: Path, aws: str, arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    if arguments[:2] not in (["eks", "update-kubeconfig"], ["eks", "create-access-entry"]):
        os.execv(aws, [aws, *arguments])  # noqa: S606 - replaces this process, without a shell
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if arguments[1] == "create-access-entry":
            _create_access_entry(kubeconfig, arguments[2:])
        else:
            _update_kubeconfig(kubeconfig, arguments[2:])
    except (BotoCoreError, ClientError, LookupError) as error:
        print(error, file=sys.stderr)
        return _REFUSED
    return 0


def token_of(caller: str, entries: Mapping[str, Sequence[str]], tokens: Mapping[str, str], administrator: str) -> str:
    """Return the bearer token with which a caller reaches a cluster.

    Args:
        caller: ARN of the caller, as STS says it.
        entries: ARN of a principal → its Kubernetes groups.
        tokens: Kubernetes group → token of its member; empty for a cluster that knows the administrator only.
        administrator: token of the cluster's administrator.

    Raises:
        LookupError: no token belongs to exactly the groups of the caller's role.
    """
    if not tokens or ":assumed-role/" not in caller:
        return administrator
    name = caller.split("/")[1]
    groups = next((groups for principal, groups in entries.items() if principal.rpartition("/")[2] == name), None)
    if groups is None:
        return _NOBODY
    if len(groups) != 1 or groups[0] not in tokens:
        raise LookupError(f"groups of {name}: expected one of {', '.join(sorted(tokens))}, found {', '.join(groups)}")
    return tokens[groups[0]]


def _create_access_entry(kubeconfig: Path, arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("aws eks create-access-entry")
    parser.add_argument("--cluster-name", required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--kubernetes-groups", nargs="+", required=True)
    parser.add_argument("--principal-arn", required=True)
    options = parser.parse_args(arguments)
    import boto3

    boto3.client("eks", region_name=options.region).describe_cluster(name=options.cluster_name)
    name = options.principal_arn.rpartition("/")[2]
    found = boto3.client("iam").get_role(RoleName=name)["Role"]["Arn"]
    if found != options.principal_arn:
        raise LookupError(f"ARN of the role {name}: expected {found}, found {options.principal_arn}")
    entries = _read(kubeconfig.with_name(ACCESS_ENTRIES))
    entries.setdefault(options.cluster_name, {})[options.principal_arn] = options.kubernetes_groups
    write_atomically(kubeconfig.with_name(ACCESS_ENTRIES), json.dumps(entries))


def _update_kubeconfig(kubeconfig: Path, arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("aws eks update-kubeconfig")
    parser.add_argument("--name", required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--kubeconfig", type=Path, default=Path(os.environ.get("KUBECONFIG", "~/.kube/config")))
    options = parser.parse_args(arguments)
    import boto3

    boto3.client("eks", region_name=options.region).describe_cluster(name=options.name)
    caller = boto3.client("sts", region_name=options.region).get_caller_identity()["Arn"]
    config = yaml.safe_load(kubeconfig.read_text())
    entries: Entries = _read(kubeconfig.with_name(ACCESS_ENTRIES))
    user = config["users"][0]["user"]
    user["token"] = token_of(
        caller, entries.get(options.name, {}), _read(kubeconfig.with_name(GROUP_TOKENS)), user["token"]
    )
    write_atomically(options.kubeconfig.expanduser(), json.dumps(config))


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
