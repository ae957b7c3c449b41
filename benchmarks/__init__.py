"""Measures envbuild against docker build and pip-compile, side by side in one run."""
