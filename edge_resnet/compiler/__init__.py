"""Derives what a machine runs from an artifact: Q/DQ graphs for the CPU, typed graphs and plans for TensorRT.

Does not know about torch or images. Loads onnx; TensorRT's builder runs in a child process.
"""
