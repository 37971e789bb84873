"""Training: runs from beginning to end."""
