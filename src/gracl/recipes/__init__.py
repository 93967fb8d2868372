"""Recipes: settings that go together, one YAML file each."""
