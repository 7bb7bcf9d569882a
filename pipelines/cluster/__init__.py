"""Kubernetes: run jobs and follow rollouts in the cluster of the current KUBECONFIG."""
