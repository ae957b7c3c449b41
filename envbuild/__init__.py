"""Compiles environment specs into reproducible images."""

__version__ = "0.1.0"
