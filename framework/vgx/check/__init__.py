"""Checks: what can be known before the first step."""
