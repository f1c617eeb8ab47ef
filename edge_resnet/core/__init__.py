"""What every wing uses: errors, the records that describe a network and its input, files, statistics, subprocesses.

Knows nothing of images, graphs and devices. Loads the standard library and, to read records from JSON, pydantic.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
