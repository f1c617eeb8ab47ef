"""What every wing uses: errors, the records that describe a network and its input, files, statistics, packages, subprocesses.

Does not know about images, graphs or devices. Loads the standard library, packaging and, to read records from JSON, pydantic.
"""
