"""Which sinks a run writes to, from what was asked for. Knows their options and opens none before it must."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edge_resnet.core.errors import ConfigError
from edge_resnet.streaming.session import Outputs

if TYPE_CHECKING:
    pass

__all__ = ["check_outputs"]


def check_outputs(wanted: Outputs, *, json_output: bool) -> None:
    """Refuse words that contradict each other, before anything is opened."""
    if wanted.jsonl == "-" and json_output:
        raise ConfigError("--jsonl - and --json both want stdout", hint="give --jsonl a file")
    if wanted.jsonl in (None, "-") and (wanted.jsonl_append or wanted.jsonl_max_mib is not None or wanted.jsonl_sync != "never"):
        raise ConfigError("--jsonl-append, --jsonl-max and --jsonl-sync are about a file", hint="--jsonl FILE")
    if wanted.web is None and wanted.web_token is not None and "--web-token" in sys.argv:
        raise ConfigError("--web-token is the page's, and there is none", hint="add --web HOST:PORT")
