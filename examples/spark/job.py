"""A word count and an estimate of pi with Spark; every run prints the same lines."""

from __future__ import annotations

import random
from operator import add

from pyspark.sql import SparkSession

TEXT = """the spark that lit the fire was the last spark of the night
and the night was long and the fire was bright""".splitlines()
POINTS = 200_000
PARTS = 4


def hits(part: int) -> int:
    """How many of a part's random points lie in the unit circle; seeded, so always as many."""
    points = random.Random(part)
    return sum(points.random() ** 2 + points.random() ** 2 <= 1 for _ in range(POINTS // PARTS))


def main() -> None:
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", False).getOrCreate()
    try:
        context = spark.sparkContext
        context.setLogLevel("ERROR")
        counts = context.parallelize(TEXT).flatMap(str.split).map(lambda word: (word, 1)).reduceByKey(add)
        frame = spark.createDataFrame(counts, "word string, count int").where("count > 1")
        for row in frame.orderBy("count", "word", ascending=[False, True]).collect():
            print(f"{row['word']} {row['count']}")
        inside = context.parallelize(range(PARTS), PARTS).map(hits).sum()
        print(f"pi is about {4 * inside / POINTS:.4f}")
        java = context._jvm.java.lang.System.getProperty("java.specification.version")
        print(f"spark {spark.version}, jvm {java}")
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
