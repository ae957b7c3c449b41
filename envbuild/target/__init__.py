"""Where images run: targets, their limits, jobs and services on them."""
