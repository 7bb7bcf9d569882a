"""What the pipelines ask of the Kubernetes cluster that their KUBECONFIG names."""
