"""The registry of versioned environments."""
