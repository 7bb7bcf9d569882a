"""The laptop's Kubernetes cluster: the part of the Kubernetes API that this project uses, in one process, with
controllers that run Jobs, Deployments and Rollouts as processes on this machine.

It is not Kubernetes. There is no scheduling, no network policy and no limit on CPU or memory, and pods can read the
files of the user who runs it. HorizontalPodAutoscalers, PodDisruptionBudgets and NetworkPolicies are validated and
stored, and have no effect. It refuses what it cannot run, with the reason (see `supported`).
"""

FORK_SERVER = "MLOPS_LAPTOP_FORK_SERVER"
"""Variable that turns the fork server off if it is `0`."""
