"""edge-resnet: a ResNet from its torch weights to predictions on a Jetson, a desktop GPU or a CPU.

Importing the package loads nothing but this file; every heavy library is loaded by the one module that owns it.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
