"""Where images may be read from and written to, and what is done with them there."""
