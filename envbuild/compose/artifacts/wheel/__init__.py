"""Wheels as entries of an image."""
