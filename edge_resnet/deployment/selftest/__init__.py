"""``edge-resnet selftest``: compiles and runs a network on this machine with every backend, and compares the answers."""
