"""The command line: a thin layer that parses, calls the pipeline, and shows."""
