"""Measures of reconstructions and of generated pictures."""
