"""The laptop's Kubernetes cluster: the part of the Kubernetes API that this project uses, in one process, with
controllers that run Jobs, Deployments and Rollouts as processes on this machine.

It is not Kubernetes. There is no scheduling and no limit on CPU or memory, and pods can read the files of the user who
runs it. HorizontalPodAutoscalers and PodDisruptionBudgets are validated and stored, and have no effect. NetworkPolicies
have some in a realistic cluster (see `private_network`). It refuses what it cannot run, with the reason (see
`supported`).
"""

FORK_SERVER = "MLOPS_LAPTOP_FORK_SERVER"
"""Variable that turns the fork server off if it is `0`."""

AUTHORITY = "ca.crt"
"""Certificate of the cluster's authority, for clients of Ingresses with TLS; in the cluster's folder."""
