"""Where an image may be written to: one module a medium."""
