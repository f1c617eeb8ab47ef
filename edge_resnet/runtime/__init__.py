"""Runs a network: the backend protocol, the table of backends, and each backend.

Knows nothing of frames, data sets and measurements. Loads the one inference library that is asked for; never torch, never onnx.
"""
