"""The child process of the self-test: makes the checks of one task, and tells each as a line of JSON.

The lines go to the standard output that it was started with. What libraries print there goes to standard error instead.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path

from edge_resnet.deployment.selftest.check import Desk
from edge_resnet.deployment.selftest.task import from_json

__all__ = ["main"]


def main(task: str) -> None:
    """Make the checks of a task, as ``as_json`` wrote it, and exit at once: libraries may crash while they clean up."""
    asked = from_json(task)
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.getLogger("edge_resnet").addHandler(logging.NullHandler())  # what is worth telling is in a check

    def tell(line: str) -> None:
        lines.write(f"{line}\n")
        lines.flush()

    desk = Desk(asked.group, tell, time.monotonic)
    if asked.backend:
        from edge_resnet.deployment.selftest.backend import BackendChecks

        BackendChecks(asked, desk).run()
    else:
        from edge_resnet.deployment.selftest.machine import check_machine

        check_machine(desk, Path(asked.artifact))
    tell(json.dumps({"done": True}))
    sys.stderr.flush()
    os._exit(0)
