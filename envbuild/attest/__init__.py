"""What is said about an image, attached to it: bill of materials, provenance, signature."""
