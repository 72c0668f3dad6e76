"""How a file's graph becomes the canonical form, one step a file."""
