"""Starts a command in an image."""
