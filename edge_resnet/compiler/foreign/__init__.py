"""Takes the ONNX model of a stranger to the graph of an artifact: read, rewritten layer by layer, wrapped, verified.

Does not know about torch, artifacts or INT8. Loads onnx, and ONNX Runtime to compute constants and to verify.
"""

from edge_resnet.compiler.foreign.reading import image_input, read_onnx
from edge_resnet.compiler.foreign.wrapping import Wrapped, input_size, verify_wrapped, wrap

__all__ = ["Wrapped", "image_input", "input_size", "read_onnx", "verify_wrapped", "wrap"]
