"""The built-in discriminators."""
