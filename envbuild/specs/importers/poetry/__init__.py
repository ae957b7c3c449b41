"""Poetry's project tables and lock."""
