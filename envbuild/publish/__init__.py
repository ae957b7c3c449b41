"""Brings images from the store to where they are wanted."""
