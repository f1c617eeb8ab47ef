"""What a device needs besides the network: a check of what is missing or broken, and the systemd service.

Does not know about networks. Loads neither torch nor onnx.
"""
