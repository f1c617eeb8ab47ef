"""Recipes, measured tables and checkpoints for INT8 builds: data, no code."""
