"""What a device needs beside the network: a check of what is missing, and the systemd unit.

Knows no network. Loads neither torch nor onnx.
"""
