"""Where an image may be read from: one module a medium."""
