"""What an AWS account needs before the first deployment: the state bucket, and the roles that GitHub may take."""

from __future__ import annotations

from pathlib import Path

import pulumi
import pulumi_aws as aws

from infra.bootstrap.configuration import PREVIEW, load_account
from infra.bootstrap.estate import Estate
from infra.bootstrap.identity import GitHub
from infra.bootstrap.state import State
from infra.environment import Environment, Place
from pipelines.declarations.documents import parse_yaml, read_bytes
from pipelines.declarations.project import PROGRAM, Project

config = load_account()
project = Project(Path(__file__).resolve().parents[2])
main = parse_yaml(read_bytes(project.root / PROGRAM), project.root / PROGRAM)[0]["name"]
caller, region = aws.get_caller_identity(), aws.get_region().region
account, partition = caller.account_id, caller.arn.split(":")[1]

place = Place("account", main, config, account, region, partition)
stacks = {name: project.stack(name).config for name in project.environments}
environments = [
    Environment(name, main, stack.environment, account, stack.region, partition) for name, stack in stacks.items()
]
estate = Estate(place, main, tuple(environments))

state = State("state", place, config)
github = GitHub("github", estate, config, state)

backend = f"s3://{state.bucket.name}?region={region}"
pulumi.export("state_bucket", state.bucket.name)
pulumi.export("backend_url", backend)
pulumi.export("deploy_roles", github.deploy)
pulumi.export("preview_role", github.preview)
# Where each goes on GitHub: docs/bootstrap.md
pulumi.export(
    "variables",
    {
        "repository": {"AWS_REGION": region, "MLOPS_TARGET": "aws", "PULUMI_BACKEND_URL": backend},
        PREVIEW: {"AWS_PREVIEW_ROLE": github.preview},
        **{name: {"AWS_DEPLOY_ROLE": arn} for name, arn in github.deploy.items()},
    },
)
