"""Conda packages as entries of an image."""
