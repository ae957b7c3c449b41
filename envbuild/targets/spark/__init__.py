"""Spark's own job submission."""
