"""Two measurements of the same thing: what became worse by more than a tolerance.

Knows the files and measures nothing. Loads numpy.
"""
