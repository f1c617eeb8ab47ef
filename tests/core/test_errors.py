"""The error classes: one base, a message and a hint, and an exit code by kind of fault."""

from __future__ import annotations

import inspect

import pytest

from edge_resnet.core import errors
from edge_resnet.core.errors import ArtifactError, ConfigError, EdgeResnetError, IncompatibleEngineError, MissingDependencyError

KINDS = [value for name in errors.__all__ if inspect.isclass(value := getattr(errors, name))]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_the_one_base(kind: type[EdgeResnetError]) -> None:
    """Catching EdgeResnetError catches every error of edge-resnet."""
    assert issubclass(kind, EdgeResnetError)


@pytest.mark.parametrize("kind", KINDS)
def test_message_and_hint_are_kept(kind: type[EdgeResnetError]) -> None:
    """The message is the text of the exception, and the hint is separate."""
    error = kind("what is wrong", hint="what to do")
    assert (str(error), error.message, error.hint) == ("what is wrong", "what is wrong", "what to do")
    assert kind("alone").hint == ""


@pytest.mark.parametrize("kind", KINDS)
def test_exit_codes_are_the_documented_ones(kind: type[EdgeResnetError]) -> None:
    """1 if the machine failed, 2 for wrong input, 3 for a failed gate, as in the docstring of the module."""
    assert kind.exit_code in (1, 2, 3)
    line = next((line for line in (errors.__doc__ or "").splitlines() if kind.__name__ + " " in line), None)
    if line is not None:
        assert line.endswith(f"exit {kind.exit_code}")


def test_the_docstring_draws_the_whole_tree() -> None:
    """No error is missing from the tree, and all classes of the module are exported."""
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__}
    assert classes | {"INTERRUPTED", "is_out_of_memory"} == set(errors.__all__)
    assert all(name in (errors.__doc__ or "") for name in classes)


def test_errors_are_also_what_python_calls_them() -> None:
    """A bad value is a ValueError, a missing package an ImportError, a foreign engine an ArtifactError."""
    assert issubclass(ConfigError, ValueError)
    assert issubclass(MissingDependencyError, ImportError)
    assert issubclass(IncompatibleEngineError, ArtifactError)
