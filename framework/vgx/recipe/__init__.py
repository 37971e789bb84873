"""Recipes: typed YAML files."""
