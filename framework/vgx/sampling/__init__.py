"""Sampling: a trained run as something to draw with."""
