"""What is to be found in the account once every environment is up, by the names that the main program gives."""

from __future__ import annotations

from dataclasses import dataclass

from infra.bootstrap.configuration import PREVIEW
from infra.environment import Environment, Place
from pipelines.declarations.errors import MlopsError

STATE_ALIAS = "alias/mlops-state"
"""The key of the state; `secretsprovider` in `Pulumi.<environment>.yaml` names it."""

PATH = "/bootstrap/"
"""Of the roles and policies made here: no pattern for the roles of an environment reaches them."""


@dataclass(frozen=True)
class Estate:
    """The account and the environments in it.

    Attributes:
        place: the part of the account that is made here.
        main: the main program's name, the first part of every name in an environment.
        environments: in the order of promotion.
    """

    place: Place
    main: str
    environments: tuple[Environment, ...]

    def __post_init__(self) -> None:
        """What one environment may touch is told by the beginning of names, so none may begin as another's do."""
        taken = [self.place.name, PREVIEW, *(environment.name for environment in self.environments)]
        for number, one in enumerate(taken):
            for other in taken[:number]:
                if f"{one}-".startswith(f"{other}-") or f"{other}-".startswith(f"{one}-"):
                    raise MlopsError(
                        f"the environment {one!r} cannot be kept apart from {other!r}: the names of what is in them "
                        "begin alike",
                        fix="give the environment another name",
                    )
        for environment in self.environments:
            wanted = self.boundary_arn(environment)
            if environment.permissions_boundary != wanted:
                raise MlopsError(
                    f"Pulumi.{environment.name}.yaml has the permissions boundary "
                    f"{environment.config.permissions_boundary}, and the roles of GitHub's jobs may only make roles "
                    f"under {wanted}",
                    fix=f"permissions_boundary: {wanted.partition(':policy/')[2]}",
                )

    def boundary_name(self, environment: Environment) -> str:
        """The name of what bounds every role of an environment."""
        return f"{self.main}-{environment.name}-boundary"

    def boundary_arn(self, environment: Environment) -> str:
        """Its ARN, known before it exists."""
        name = self.boundary_name(environment)
        return f"arn:{environment.partition}:iam::{environment.account}:policy{PATH}{name}"

    def before(self, environment: Environment) -> Environment | None:
        """The environment that an environment promotes from."""
        return next((one for one in self.environments if one.name == environment.config.promotes_from), None)
