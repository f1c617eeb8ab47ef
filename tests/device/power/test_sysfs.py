"""Reading files with one value, including malformed ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from sysfstrees import ORIN_NANO, as_nobody, write

from edge_resnet.device.power import PowerMeter, search_meters
from edge_resnet.device.power.boards import matching, number, text


@pytest.mark.parametrize(("content", "value"), [(b"1200\n", 1200), (b"-256000\n", -256000), (b" 7 ", 7), (b"0", 0)])
def test_a_number_is_read_as_the_kernel_writes_it(content: bytes, value: int, tmp_path: Path) -> None:
    """White space around an integer does not matter."""
    path = tmp_path / "temp"
    path.write_bytes(content)
    assert number(path) == value


@pytest.mark.parametrize("content", [b"", b"\n", b"N/A\n", b"1.5\n", b"12 34\n"])
def test_what_is_no_whole_number_is_a_value_error(content: bytes, tmp_path: Path) -> None:
    """An empty or malformed file is an error, not zero."""
    path = tmp_path / "temp"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="invalid literal"):
        number(path)


def test_text_is_without_the_ends_that_device_trees_leave(tmp_path: Path) -> None:
    """NUL and newline at the end are stripped; a file that cannot be read gives an empty text."""
    path = tmp_path / "label"
    path.write_bytes(b"VDD_IN\0\n")
    assert text(path) == "VDD_IN"
    assert text(tmp_path / "missing") == ""
    assert text(tmp_path) == ""


def test_matches_are_sorted(tmp_path: Path) -> None:
    """The order does not depend on the file system."""
    write(tmp_path, {f"hwmon{number}/name": "x" for number in (3, 1, 2)})
    assert [path.name for path in matching(tmp_path, "hwmon*")] == ["hwmon1", "hwmon2", "hwmon3"]


def test_what_may_not_be_looked_at_holds_no_match(open_folder: Path) -> None:
    """A folder that may not be entered counts as empty."""
    write(open_folder, {"closed/sys/name": "x"})
    (open_folder / "closed").chmod(0)
    with as_nobody():
        assert matching(open_folder / "closed/sys", "*") == []


def test_a_machine_that_may_not_be_looked_at_has_no_meters(open_folder: Path) -> None:
    """Folders that may not be entered raise nothing, neither in the search nor while measuring."""
    write(open_folder, ORIN_NANO)
    (open_folder / "sys/class/devfreq").chmod(0)
    (open_folder / "sys/bus/i2c/devices").chmod(0)
    with as_nobody():
        assert search_meters(open_folder).meters == ()
        with PowerMeter(root=open_folder, hz=100) as meter:
            pass
        reading = meter.reading()
    assert reading.gpu_clock is None
    assert reading.temperatures is not None


def test_reading_leaves_no_file_open(tmp_path: Path) -> None:
    """No file handle is leaked, however often reading succeeds or fails."""
    write(tmp_path, {"temp": "1", "odd": "x"})
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        number(tmp_path / "temp")
        with pytest.raises(ValueError, match="invalid literal"):
            number(tmp_path / "odd")
        text(tmp_path / "missing")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
