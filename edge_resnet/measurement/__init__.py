"""Accuracy, latency and power measured, compared and reported.

Knows no camera and trains nothing. Loads matplotlib and jinja2 only where a report is drawn; never torch, never onnx.
"""
