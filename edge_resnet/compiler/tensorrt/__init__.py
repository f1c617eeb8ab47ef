"""Graph file → TensorRT plan, on the machine at hand and through what TensorRT 8.6 to 11 have in common. Knows no artifact, no
onnx and no runtime: a plan is bytes."""
