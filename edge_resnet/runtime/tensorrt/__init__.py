"""The TensorRT backend: plans, pinned buffers, streams, CUDA graphs, and frames resized on the GPU.

Knows nothing of how a plan is built. Loads tensorrt and PyCUDA, the latter in ``cuda`` alone.
"""
