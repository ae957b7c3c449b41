"""From a lock to ordered, typed steps."""
