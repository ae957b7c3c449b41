"""Resolves and reads back conda package pins."""
