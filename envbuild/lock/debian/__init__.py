"""Resolves bases made of Debian packages."""
