"""Compares two measurements of the same thing, and finds what regressed by more than a tolerance.

Reads files and measures nothing. Loads numpy.
"""
