"""What ``edge-resnet doctor`` checks on this machine, and the one command that fixes each problem. Runs no network."""
