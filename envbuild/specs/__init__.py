"""From people's files to one frozen value, and back."""
