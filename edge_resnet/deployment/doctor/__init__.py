"""What ``edge-resnet doctor`` looks at on this machine, and the one command that mends each lack. Runs no network."""
