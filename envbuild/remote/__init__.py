"""Speaks to container registries."""
