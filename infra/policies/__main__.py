"""Entry point of the policy pack: `pulumi up --policy-pack infra/policies`."""

from __future__ import annotations

from pulumi_policy import EnforcementLevel, PolicyPack

from infra.policies.pack import policies

if __name__ == "__main__":
    PolicyPack(name="mlops", policies=[*policies()], enforcement_level=EnforcementLevel.MANDATORY)
