"""A small cluster in one process: the part of the Kubernetes API that this project uses, and controllers that run its
Jobs and Rollouts as processes on this machine.

It is not Kubernetes. There is no scheduling, no network policy, no limit on CPU or memory, no isolation between a pod
and the files of the user who runs it; HorizontalPodAutoscalers, PodDisruptionBudgets, NetworkPolicies and RBAC are
validated and kept, and nothing acts on them. What it cannot run it refuses, with the reason (see `supported`).
"""
