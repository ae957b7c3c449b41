"""Scores one row read from stdin: a JSON list of numbers in, their mean out."""

import json
import statistics
import sys

print(statistics.mean(json.load(sys.stdin)))
