"""The machine at hand: processor, GPU, board, memory, cameras, power and temperature.

Does not know about networks. Loads no GPU library except NVML, and that only to measure power.
"""
