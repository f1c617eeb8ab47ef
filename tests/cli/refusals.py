"""What every refused command has in common."""

from __future__ import annotations

from typing import Any

__all__ = ["assert_refused"]


def assert_refused(outcome: Any, *words: str, code: int = 2) -> None:
    """One error line and one hint line that hold the words, that exit code, and nothing on stdout."""
    assert outcome.code == code, outcome.err
    lines = outcome.err.strip().splitlines()
    described = lines[0].endswith(")") and " classes (" in lines[0]  # the artifact was opened, and said to be, before the fault
    assert [line.split(":")[0] for line in lines[described:]] == ["error", "hint"], outcome.err
    assert outcome.out == ""
    assert all(word in outcome.err for word in words), outcome.err
