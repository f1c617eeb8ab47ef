"""RAPL counters on trees whose files the test changes. Needs no real counter."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sysfstrees import RAPL, as_nobody, write

from edge_resnet.device.power import find_meters, search_meters

ZONE = "sys/class/powercap/intel-rapl"


def _packages(*ranges_uj: int) -> dict[str, str]:
    files = {}
    for number, range_uj in enumerate(ranges_uj):
        folder = f"{ZONE}:{number}"
        files |= {
            f"{folder}/name": f"package-{number}",
            f"{folder}/energy_uj": "0",
            f"{folder}/max_energy_range_uj": str(range_uj),
        }
    return files


def test_only_packages_count_and_each_once(tmp_path: Path) -> None:
    """Cores are part of their package, psys contains it, and intel-rapl-mmio repeats it: none of them is added."""
    (meter,) = find_meters(write(tmp_path, RAPL))
    assert (meter.source, meter.covers) == ("RAPL package-0", "CPU package")
    with meter.open() as read:
        read()
        write(tmp_path, {f"{ZONE}:0/energy_uj": "3501000", f"{ZONE}:1/energy_uj": "9999999", f"{ZONE}:0:0/energy_uj": "9999999"})
        assert read().energy_mj == pytest.approx(3500)


def test_packages_are_added(tmp_path: Path) -> None:
    """The counters of two sockets are added, although their values differ."""
    (meter,) = find_meters(write(tmp_path, _packages(10**9, 10**9)))
    assert meter.source == "RAPL package-0+package-1"
    with meter.open() as read:
        read()
        write(tmp_path, {f"{ZONE}:0/energy_uj": "1000", f"{ZONE}:1/energy_uj": "500"})
        assert read().energy_mj == pytest.approx(1.5)


@given(
    st.lists(st.tuples(st.integers(0, 9_999), st.integers(0, 6_999)), min_size=1, max_size=12),
    st.integers(0, 9_999),
    st.integers(0, 6_999),
)
def test_counters_that_begin_anew_lose_nothing(steps: list[tuple[int, int]], first: int, second: int) -> None:
    """The sum is the energy that was used, however often each counter wraps around at its own range."""
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder), _packages(10_000, 7_000))

        def show() -> None:
            write(root, {f"{ZONE}:0/energy_uj": str(first % 10_000), f"{ZONE}:1/energy_uj": str(second % 7_000)})

        show()
        (meter,) = find_meters(root)
        with meter.open() as read:
            began = read().energy_mj
            spent = 0
            for more, other in steps:
                first, second, spent = first + more, second + other, spent + more + other
                show()
                sample = read()
                assert sample.energy_mj is not None
                assert began is not None
                assert sample.energy_mj - began == pytest.approx(spent / 1000)


def test_a_failed_read_between_two_loses_nothing(tmp_path: Path) -> None:
    """After a failed read the next one counts from the last successful one."""
    (meter,) = find_meters(write(tmp_path, _packages(10**9, 10**9)))
    with meter.open() as read:
        read()
        write(tmp_path, {f"{ZONE}:0/energy_uj": "1000", f"{ZONE}:1/energy_uj": "junk"})
        with pytest.raises(ValueError, match="junk"):
            read()
        write(tmp_path, {f"{ZONE}:0/energy_uj": "3000", f"{ZONE}:1/energy_uj": "500"})
        assert read().energy_mj == pytest.approx(3.5)


def test_each_measurement_counts_from_its_own_beginning(tmp_path: Path) -> None:
    """Two readers of one meter do not share state."""
    (meter,) = find_meters(write(tmp_path, _packages(10_000)))
    with meter.open() as early:
        early()
        write(tmp_path, {f"{ZONE}:0/energy_uj": "9000"})
        early()
        with meter.open() as late:
            late()
            write(tmp_path, {f"{ZONE}:0/energy_uj": "1000"})
            assert (late().energy_mj, early().energy_mj) == (2.0, 11.0)


def test_unreadable_counters_are_absent_with_the_remedy(open_folder: Path) -> None:
    """If only root may read, there is no meter; the reason has the command that changes this, and its risk."""
    write(open_folder, RAPL)
    for path in open_folder.glob("sys/class/powercap/*/energy_uj"):
        path.chmod(0)
    with as_nobody():
        found = search_meters(open_folder)
    assert found.meters == ()
    assert "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj" in found.reasons[-1]
    assert "a machine that you do not share" in found.reasons[-1]


@pytest.mark.parametrize("missing", ["energy_uj", "max_energy_range_uj"])
def test_half_a_counter_is_none(missing: str, tmp_path: Path) -> None:
    """A package without a value or without its range is no meter: a wrap would look like an error."""
    write(tmp_path, RAPL)
    (tmp_path / f"{ZONE}:0" / missing).unlink()
    found = search_meters(tmp_path)
    assert found.meters == ()
    assert found.reasons[-1] == "the RAPL counters give no values"
