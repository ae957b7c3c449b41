"""Debian packages as entries of an image."""
