"""Resolves and reads back Python distribution pins."""
