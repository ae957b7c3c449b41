"""Files from elsewhere: requests, retries, TLS, credentials, downloads into the store."""
