"""From a plan to layers and manifests, without a daemon."""
