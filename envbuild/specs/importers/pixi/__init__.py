"""Pixi's manifest and lock."""
