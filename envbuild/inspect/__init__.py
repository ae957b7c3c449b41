"""Images that exist: what is inside, what differs, composed again, on another base."""
