"""Gets files from elsewhere, verified."""
