"""uv's lock and settings."""
