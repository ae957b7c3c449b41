"""Builds by BuildKit, through the docker command."""
