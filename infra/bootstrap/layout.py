"""The layout of an AWS account: its environments, and the names of what the bootstrap creates for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.bootstrap.configuration import IMAGES, PREVIEW
from infra.scopes import BOOTSTRAP_PATH, Environment, Scope
from pipelines.declarations.errors import MlopsError

STATE_ALIAS = "alias/mlops-state"
"""Alias of the key that encrypts the state; `secretsprovider` in `Pulumi.<environment>.yaml` names it."""


@dataclass(frozen=True)
class AccountLayout:
    """The account and its environments.

    Attributes:
        scope: the scope of what the bootstrap creates.
        project: the main program's name, the first part of every physical name.
        environments: the environments in the order of promotion.

    Raises:
        MlopsError: IAM cannot tell two environments apart, or an environment's configuration does not fit the account.
    """

    scope: Scope
    project: str
    environments: tuple[Environment, ...]

    def __post_init__(self) -> None:
        self._check_names()
        for environment in self.environments:
            self._check_boundary(environment)
            self._check_registry(environment)

    def _check_names(self) -> None:
        """IAM scopes environments by name prefix, so no environment name may be a prefix of another."""
        taken = [self.scope.name, PREVIEW, IMAGES, *(environment.name for environment in self.environments)]
        for number, one in enumerate(taken):
            for other in taken[:number]:
                if f"{one}-".startswith(f"{other}-") or f"{other}-".startswith(f"{one}-"):
                    raise MlopsError(
                        f"the environment names {one!r} and {other!r} share a prefix, by which IAM tells environments "
                        "apart: expected names that do not begin with each other",
                        fix="rename one of the environments",
                    )

    def _check_boundary(self, environment: Environment) -> None:
        expected = self.boundary_arn(environment)
        if environment.permissions_boundary != expected:
            raise MlopsError(
                f"Pulumi.{environment.name}.yaml has the wrong permissions_boundary: expected {expected}, found "
                f"{environment.config.permissions_boundary}",
                fix=f"permissions_boundary: {expected.partition(':policy/')[2]}",
            )

    def _check_registry(self, environment: Environment) -> None:
        registry = environment.config.image_registry
        region = registry.region or environment.region
        if registry.account in (None, self.scope.account) and region != self.scope.region:
            raise MlopsError(
                f"Pulumi.{environment.name}.yaml names an image registry that does not exist: expected the region "
                f"{self.scope.region} of the account's bootstrap, found {region}",
                fix=f"image_registry: {{region: {self.scope.region}}}",
            )

    def opened(self, names: Sequence[str]) -> frozenset[str]:
        """Return the names of the environments whose deploy roles may change the protection of existing buckets.

        Args:
            names: environments that the account's configuration opens, in addition to disposable ones.

        Raises:
            MlopsError: an environment does not exist.
        """
        known = [environment.name for environment in self.environments]
        for name in names:
            if name not in known:
                raise MlopsError(
                    f"open_environments names an environment that does not exist: expected one of {', '.join(known)}, "
                    f"found {name}",
                    fix=f"correct open_environments in Pulumi.{self.scope.name}.yaml",
                )
        return frozenset(names) | {one.name for one in self.environments if one.config.disposable}

    def landing(self, principals: Mapping[str, Sequence[str]]) -> dict[Environment, tuple[str, ...]]:
        """Return environment → the principals that may land data files there.

        Args:
            principals: environment's name → ARNs.

        Raises:
            MlopsError: an environment does not exist.
        """
        known = {one.name: one for one in self.environments}
        for name in principals:
            if name not in known:
                raise MlopsError(
                    f"landing_principals names an environment that does not exist: expected one of "
                    f"{', '.join(known)}, found {name}",
                    fix=f"correct landing_principals in Pulumi.{self.scope.name}.yaml",
                )
        return {known[name]: tuple(arns) for name, arns in principals.items() if arns}

    def boundary_name(self, environment: Environment) -> str:
        """Return the name of the permissions boundary of an environment's roles."""
        return f"{self.project}-{environment.name}-boundary"

    def boundary_arn(self, environment: Environment) -> str:
        """Return the boundary's ARN, which is known before the policy exists."""
        name = self.boundary_name(environment)
        return f"arn:{environment.partition}:iam::{environment.account}:policy{BOOTSTRAP_PATH}{name}"

    def before(self, environment: Environment) -> Environment | None:
        """Return the environment that an environment promotes from, or None."""
        return next((one for one in self.environments if one.name == environment.config.promotes_from), None)
