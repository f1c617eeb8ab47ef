"""log.py: what counts as out of memory, warnings told once, levels of whole messages, and one logger per process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from standins.surface import VERSIONS

from edge_resnet.runtime.tensorrt.log import BuildLog, log_to_python

CANNOT = "Error Code 10: Internal Error (Could not find any implementation for node conv1.)"
TOO_MUCH = "Tactic Device request: 143MB Available: 112MB. Device memory is insufficient to use tactic."


def taken(*lines: tuple[int, str]) -> BuildLog:
    """A log that these messages went through."""
    log = BuildLog()
    for level, text in lines:
        log.take(level, text)
    return log


def test_every_recorded_case_is_classified(real_data: Path) -> None:
    """Six ways of real builders to say that memory ran out count as such, and a warning in a build that succeeds does not."""
    text = (real_data / "tensorrt_logs" / "out_of_memory.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    cases: dict[str, list[tuple[int, str]]] = {}
    for line in lines:
        if line.startswith("["):
            case = cases.setdefault(line.strip("[]"), [])
        else:
            level, _, said = line.partition(" ")
            case.append((getattr(logging, level), said))
    assert len(cases) == 7
    for name, messages in cases.items():
        assert (taken(*messages).out_of_memory() is not None) is (name != "not"), name


def test_the_line_about_memory_is_the_reason() -> None:
    """The error only says that no tactic is left: the reason is the warning before it."""
    assert taken((logging.WARNING, TOO_MUCH), (logging.ERROR, CANNOT)).out_of_memory() == TOO_MUCH


def test_another_failure_is_not_blamed_on_memory() -> None:
    """A skipped tactic is ordinary: an error with a reason of its own is told as it is, also without any warning."""
    wrong = "Error Code 4: API Usage Error (Dimension mismatch for tensor images and profile 0.)"
    assert taken((logging.WARNING, TOO_MUCH), (logging.ERROR, wrong)).out_of_memory() is None
    assert taken((logging.ERROR, CANNOT)).out_of_memory() is None


def test_an_attempt_forgets_the_one_before() -> None:
    """What was logged before ``begin`` says nothing about the build after it."""
    log = taken((logging.WARNING, TOO_MUCH))
    log.begin()
    log.take(logging.ERROR, CANNOT)
    assert log.out_of_memory() is None


def test_a_warning_of_one_kind_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """At the end of a build, with the number of them; until then it is a debug line. Other numbers are not another kind."""
    log = BuildLog()
    log.begin()
    with caplog.at_level(logging.DEBUG, logger="edge_resnet"):
        for number in range(106):
            log.take(logging.WARNING, f"Converting scale {number} at 0x{number:x} to fp32.")
        log.take(logging.WARNING, "another kind")
        log.end()
        log.end()
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "TensorRT: Converting scale 0 at 0x0 to fp32. (106 warnings of this kind)",
        "TensorRT: another kind",
    ]
    assert sum(record.levelno == logging.DEBUG for record in caplog.records) == 107


def test_outside_a_build_the_first_warning_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """While an engine runs, nothing ends: the first warning of a kind is shown, and not one for every image."""
    with caplog.at_level(logging.DEBUG, logger="edge_resnet"):
        taken(*[(logging.WARNING, f"image {number} is slow") for number in range(3)])
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.DEBUG, logging.DEBUG]


def test_every_line_of_a_message_has_its_level(caplog: pytest.LogCaptureFixture) -> None:
    """A message of several lines is one record per line, so that none is shown without its level and origin."""
    with caplog.at_level(logging.DEBUG, logger="edge_resnet"):
        taken((logging.ERROR, "first\nsecond\n"))
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "TensorRT: first"),
        (logging.ERROR, "TensorRT: second"),
    ]


def test_the_listing_of_layers_is_kept() -> None:
    """The message that lists a plan's layers is kept whole; another one is not."""
    log = taken((logging.DEBUG, "Layers:\nName: a, LayerType: kgen"), (logging.DEBUG, "Layers are fused"))
    assert log.layers == "Layers:\nName: a, LayerType: kgen"


def test_why_cuda_does_not_start_is_a_reason() -> None:
    """TensorRT says it in a warning, and fails without a word: the warning belongs into the error message."""
    log = taken((logging.WARNING, "CUDA initialization failure with error: 35"))
    assert "error: 35" in log.last()


@pytest.mark.parametrize("version", VERSIONS)
def test_one_logger_per_process(tensorrt_of: Callable[[str], ModuleType], version: str) -> None:
    """TensorRT keeps the first logger that it gets, so every caller gets that one, and what it logs is not lost."""
    trt = tensorrt_of(version)
    assert log_to_python(trt) is log_to_python(trt)
    log_to_python(trt).logger.log(trt.ILogger.Severity.ERROR, "no kernel fits")
    assert log_to_python(trt).last() == "no kernel fits"


def test_the_kinds_of_warnings_that_are_kept_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """A library may put a name into each: the first kinds are told, and of the others how many there were."""
    log = BuildLog()
    log.begin()
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        for number in range(1000):
            log.take(logging.WARNING, "layer " + "".join(chr(97 + int(digit)) for digit in str(number)))
        log.end()
    assert len(caplog.records) == 101
    assert "warnings of more kinds" in caplog.records[-1].getMessage()
    assert "900" in caplog.records[-1].getMessage()
