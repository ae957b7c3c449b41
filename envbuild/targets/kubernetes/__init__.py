"""Jobs and services on a Kubernetes cluster."""
