"""Files for tools that run images without envbuild."""
