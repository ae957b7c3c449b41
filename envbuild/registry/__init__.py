"""A container registry, by the OCI distribution specification: reading and writing."""
