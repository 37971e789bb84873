"""Measures of reconstructions and of generated images."""
