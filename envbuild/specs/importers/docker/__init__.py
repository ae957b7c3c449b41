"""Dockerfiles as environments."""
