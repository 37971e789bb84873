"""Losses: functions of what the step computed."""
