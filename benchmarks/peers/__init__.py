"""The tools that quantization.py compares, a script each. A package, so that peers.py beside it does not hide the folder."""
