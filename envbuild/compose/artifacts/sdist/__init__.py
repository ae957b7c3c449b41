"""Source distributions, built in isolation into the wheel that is locked."""
