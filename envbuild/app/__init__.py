"""What envbuild does, operation by operation: the only package that sees every stage."""
