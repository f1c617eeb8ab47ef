"""The tools that quantization.py compares, a script each. Made a package so that peers.py, beside it, does not hide it."""
