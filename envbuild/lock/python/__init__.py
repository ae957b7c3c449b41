"""Which python an environment gets, and the builds of it that stand on no system."""
