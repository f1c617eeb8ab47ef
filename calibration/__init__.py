"""Recipes and measured tables that INT8 builds read: data, no code."""
