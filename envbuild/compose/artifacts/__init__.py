"""What each kind of pinned artifact puts into an image."""
