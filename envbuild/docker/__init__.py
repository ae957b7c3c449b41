"""A Docker engine's API: client, streams, containers."""
