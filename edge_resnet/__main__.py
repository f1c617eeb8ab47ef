"""``python -m edge_resnet`` is the ``edge-resnet`` command. Knows nothing but where the command starts."""

from edge_resnet.cli import main

if __name__ == "__main__":
    main()
