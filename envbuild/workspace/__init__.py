"""The versioned environments of a team, and what was made of them."""
