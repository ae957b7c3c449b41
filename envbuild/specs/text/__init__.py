"""Text formats read with the place of every value, within bounds."""
