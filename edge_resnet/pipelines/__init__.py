"""What a user asks for from start to end: build, requantize, fine-tune, open with an engine, the demonstration.

Knows the order of the steps; each step is another wing's. Import a module of it: ``engines`` and ``model`` load no torch.
"""
