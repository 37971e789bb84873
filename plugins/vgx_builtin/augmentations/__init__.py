"""The built-in augmentations."""
