"""INT8 quantization: ranges from calibration images, corrections, an accuracy budget, quantization-aware training (qat/).

Does not know about backends and devices. Loads torch and onnx.
"""
