"""Reports: pages of runs."""
