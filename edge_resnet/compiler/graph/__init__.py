"""Edits ONNX graphs: placement of Q/DQ pairs, scales, corrections, FP16 types, and TensorRT's calibration cache.

Does not know about artifacts' engines, and runs no graph. Loads onnx.
"""
