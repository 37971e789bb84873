"""Runs: what lies in a run directory."""
