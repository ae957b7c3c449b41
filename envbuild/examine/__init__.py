"""Looks at images that exist: what is inside, what differs, whether they are what their lock says."""
