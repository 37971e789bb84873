"""Evaluation: a run as figures with their spread."""
