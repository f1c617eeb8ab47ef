"""The machine at hand: processor, GPU, board, memory, cameras, power and temperature.

Knows nothing of networks. Loads no library of a GPU but NVML, and that only where power is measured.
"""
