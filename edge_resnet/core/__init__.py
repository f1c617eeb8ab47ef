"""What every wing uses: errors, the records that describe a network and its input, files, statistics, packages, subprocesses.

Does not know about images, graphs or devices. Loads the standard library, packaging and, to read records from JSON, pydantic.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
