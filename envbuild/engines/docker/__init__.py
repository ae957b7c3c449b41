"""Builds by the API of a Docker engine, with its classic builder."""
