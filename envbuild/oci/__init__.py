"""The OCI image format: digests, references, manifests, layers. Values and readers; nothing here knows a
stage."""
