"""Resolves bases that are images, by digest."""
