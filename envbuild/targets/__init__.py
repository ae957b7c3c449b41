"""Where images run: jobs that train, services that answer."""
