"""From a spec to pins: resolvers, the lock's files, its identity."""
