"""EKS describes the clusters of the file with the address and authority of the cluster that runs here."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from laptop.aws.account import start
from laptop.aws.aws_provider import AwsProvider
from laptop.aws.eks_clusters import declare_clusters
from tests.infra.recording import AUTHORITY, write_kubeconfig

GET_CLUSTER = "aws:eks/getCluster:getCluster"


def test_a_declared_cluster_leads_to_the_one_that_runs_here_and_no_other_exists(tmp_path: Path) -> None:
    account = start(tmp_path / "aws")
    try:
        words = (account.home / "credentials").read_text().split()
        eks: Any = boto3.client(
            "eks",
            endpoint_url=account.endpoint,
            region_name="eu-west-1",
            aws_access_key_id=words[3],
            aws_secret_access_key=words[6],
        )
        assert eks.list_clusters()["clusters"] == []
        file = write_kubeconfig(tmp_path / "kubeconfig", AUTHORITY)
        declare_clusters(account.home, file, [("eu-west-1", "mlops-dev")], cluster="declared")
        declare_clusters(account.home, file, [("us-east-1", "mlops-prod")], cluster="declared")
        found = eks.describe_cluster(name="mlops-dev")["cluster"]
        assert (found["endpoint"], found["status"]) == ("https://cluster.example", "ACTIVE")
        assert base64.b64decode(found["certificateAuthority"]["data"]) == AUTHORITY
        assert eks.list_clusters()["clusters"] == ["mlops-dev"], "the other one is in another region"
        invoked = AwsProvider(account.environ(), account.home).invoke(GET_CLUSTER, {"name": "mlops-dev"})
        assert invoked["arn"] == found["arn"]
        assert invoked["certificateAuthorities"] == [found["certificateAuthority"]]
        with pytest.raises(ClientError, match="No cluster found for name: mlops-prod"):
            eks.describe_cluster(name="mlops-prod")
    finally:
        account.stop()
