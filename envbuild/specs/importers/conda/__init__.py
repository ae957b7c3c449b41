"""Conda's own files: environments, explicit lists, locks, installed prefixes."""
