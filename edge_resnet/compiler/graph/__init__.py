"""ONNX graphs with INT8 in them: where Q/DQ pairs go, their scales, corrections, and FP16 types.

Knows no files and no library that runs a graph. Loads onnx.
"""
