"""envbuild's own YAML."""
