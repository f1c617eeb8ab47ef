"""``edge-resnet``, and ``python -m edge_resnet``: where the command starts. Knows nothing but what system it needs."""

import sys

from edge_resnet.core.errors import EdgeResnetError
from edge_resnet.core.system import check_system

__all__ = ["main"]


def main() -> None:
    """Run the command; on a system other than Linux say so, since its modules cannot even be imported there."""
    try:
        check_system()
    except EdgeResnetError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        sys.exit(error.exit_code)
    from edge_resnet.cli import main as run

    run()


if __name__ == "__main__":
    main()
