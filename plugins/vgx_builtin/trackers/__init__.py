"""Trackers in the box."""
