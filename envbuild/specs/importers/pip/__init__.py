"""The files of Python's packaging: requirements, projects, scripts, locks, installed environments."""
