"""Derives what a machine runs from an artifact: Q/DQ graphs for the CPU, typed graphs and plans for TensorRT.

Knows no torch and no images. Loads onnx; TensorRT's builder runs in a child process.
"""
