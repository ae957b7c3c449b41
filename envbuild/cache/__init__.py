"""Compressed segments in registry repositories, shared by machines."""
