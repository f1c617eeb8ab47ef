"""Runs a network: the backend protocol, the table of backends, and each backend; then predictions from logits.

Does not know about frames, data sets or measurements. Loads the inference library of the selected backend; never torch or onnx.
"""
