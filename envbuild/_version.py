"""The version of this package: releases, provenance and the user agent name it."""

__version__ = "0.1.0"
