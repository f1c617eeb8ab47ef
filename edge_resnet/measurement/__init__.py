"""Measures, compares and reports accuracy, latency and power.

Does not know about cameras or training. Loads matplotlib and jinja2 only to draw a report; never torch, never onnx.
"""
