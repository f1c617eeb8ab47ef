"""power.sh with stand-ins for nvpmodel and jetson_clocks that behave like NVIDIA's, including prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
from boards import MODES, Board, power_modes

from edge_resnet.deployment.doctor import checks

SAVED = "/var/lib/edge-resnet/power"

#: Prints the mode as NVIDIA's does; where a reboot is needed it asks, and on "no" changes nothing.
NVPMODEL = """
status="$ROOT/var/lib/nvpmodel/status"
case $1 in
    -q) printf 'NV Power Mode: X\\n%d\\n' "$(sed -n 's/pmode:0*\\([0-9]\\)/\\1/p' "$status")" ;;
    -m)
        if [[ " $NEEDS_REBOOT " == *" $2 "* ]]; then
            echo "NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:"
            read -r answer
            echo "answered $answer" >>"$CALLS"
            [[ $answer == [Yy]* ]] && echo reboot >>"$CALLS"
            exit 255
        fi
        printf 'pmode:%04d\\n' "$2" >"$status"
        ;;
esac
"""
#: Keeps its state in a file; refuses to store over a file, as the real one does when its question is not answered with yes.
JETSON_CLOCKS = """
clocks="$ROOT/sys/clocks"
case ${1:-} in
    --store) if [[ -e $2 ]]; then echo "already exists!"; exit 1; fi; cp "$clocks" "$2" ;;
    --restore) cp "$2" "$clocks" ;;
    --show) cat "$clocks" ;;
    "") echo locked >"$clocks" ;;
esac
"""


@pytest.fixture
def powered(board: Board) -> Board:
    """The board in its 15 W mode with unlocked clocks."""
    board.stub("nvpmodel", NVPMODEL)
    board.stub("jetson_clocks", JETSON_CLOCKS)
    board.write("sys/clocks", "free, min 729600\n")
    board.mode(0)
    return board


def _state(board: Board) -> tuple[str, str]:
    status = (board.root / "var/lib/nvpmodel/status").read_text(encoding="utf-8")
    return status.split("\n")[0].removeprefix("pmode:"), (board.root / "sys/clocks").read_text(encoding="utf-8").strip()


def _changes(board: Board) -> list[str]:
    return [call for call in board.calls if call != "nvpmodel -q"]


def test_max_calls_what_it_should_in_order(powered: Board) -> None:
    """The clocks are stored before the mode is set, and locked after it."""
    result = powered.run("power.sh", "max")
    assert result.returncode == 0, result.stderr
    assert _changes(powered) == [f"jetson_clocks --store {SAVED}/clocks", "nvpmodel -m 2", "jetson_clocks"]
    assert _state(powered) == ("0002", "locked")
    assert result.stdout.splitlines()[-1].startswith("MAXN_SUPER with locked clocks")


@pytest.mark.parametrize("before", MODES)
def test_restore_gives_back_what_max_found(before: int, powered: Board) -> None:
    """From every mode, max and then restore leave mode and clocks as they were, and no saved state."""
    powered.mode(before)
    found = _state(powered)
    assert powered.run("power.sh", "max").returncode == 0
    assert powered.run("power.sh", "restore").returncode == 0
    assert _state(powered) == found
    assert not Path(f"{powered.root}{SAVED}").exists()


def test_restore_sets_the_mode_before_the_clocks(powered: Board) -> None:
    """The saved clocks were read under the saved mode's limits."""
    powered.run("power.sh", "max")
    done = len(_changes(powered))
    powered.run("power.sh", "restore")
    assert _changes(powered)[done:] == ["nvpmodel -m 0", f"jetson_clocks --restore {SAVED}/clocks"]


def test_max_twice_keeps_what_it_found_first(powered: Board) -> None:
    """A second max does not overwrite the saved state or set the mode again, and restore restores the first state."""
    found = _state(powered)
    powered.run("power.sh", "max")
    done = len(_changes(powered))
    assert powered.run("power.sh", "max").returncode == 0
    assert _changes(powered)[done:] == ["jetson_clocks"]
    powered.run("power.sh", "restore")
    assert _state(powered) == found


def test_a_save_that_was_cut_short_is_made_again(powered: Board) -> None:
    """Clocks saved without a mode, as after a power cut, are not a saved state."""
    powered.write("var/lib/edge-resnet/power/clocks", "half\n")
    found = _state(powered)
    assert powered.run("power.sh", "max").returncode == 0
    powered.run("power.sh", "restore")
    assert _state(powered) == found


def test_restore_without_a_save_changes_nothing(powered: Board) -> None:
    """Restore may be run again, or without max."""
    result = powered.run("power.sh", "restore")
    assert (result.returncode, result.stdout) == (0, "no saved state: nothing to restore\n")
    assert _changes(powered) == []


def test_a_mode_that_needs_a_reboot_is_not_forced(powered: Board) -> None:
    """The question of nvpmodel is answered with no, clocks stay unlocked, the error has a hint, and restore still works."""
    powered.environment["NEEDS_REBOOT"] = "2"
    found = _state(powered)
    result = powered.run("power.sh", "max", stdin="yes\n")
    assert result.returncode == 1
    assert "error: power mode MAXN_SUPER can only be set with a reboot, which this script does not do" in result.stderr
    assert "hint: run sudo nvpmodel -m 2, answer yes, and after the reboot: " in result.stderr
    assert "answered no" in powered.calls
    assert "reboot" not in powered.calls
    assert _state(powered) == found
    assert powered.run("power.sh", "restore").returncode == 0
    assert _state(powered) == found


def test_after_that_reboot_the_first_mode_is_still_known(powered: Board) -> None:
    """max, a manual reboot into the mode, max again, a manual reboot back, restore: the first state."""
    found = _state(powered)
    powered.environment["NEEDS_REBOOT"] = "2"
    powered.run("power.sh", "max")
    powered.mode(2)
    assert powered.run("power.sh", "max").returncode == 0
    assert _state(powered) == ("0002", "locked")
    powered.environment["NEEDS_REBOOT"] = "0"
    refused = powered.run("power.sh", "restore")
    assert refused.returncode == 1
    assert refused.stderr.rstrip().endswith("restore")
    powered.mode(0)
    assert powered.run("power.sh", "restore").returncode == 0
    assert _state(powered) == found


@pytest.mark.parametrize(
    ("modes", "highest"),
    [
        ({0: "MAXN", 1: "MODE_15W", 2: "MODE_30W"}, 0),
        ({0: "15W", 1: "25W", 2: "MAXN_SUPER"}, 2),
        ({0: "MAXN", 1: "10W", 4: "MAXN_SUPER"}, 4),
        ({0: "120W", 1: "90W"}, 0),
        ({0: "15W", 1: "25W", 2: "7W"}, 1),
        ({}, 0),
    ],
)
def test_the_highest_mode_is_read_from_the_board(
    modes: dict[int, str], highest: int, powered: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MAXN_SUPER, else MAXN, else the most watts, else 0, as in doctor: numbers differ between boards."""
    monkeypatch.setattr(checks, "check_backends", lambda _: [])
    powered.write("etc/nvpmodel.conf", "# < POWER_MODEL ID=9 NAME=MAXN_SUPER >\n" + power_modes(modes))
    before = 1
    powered.mode(before)
    assert powered.run("power.sh", "max").returncode == 0
    called = [call for call in powered.calls if call.startswith("nvpmodel -m")]
    assert called == ([f"nvpmodel -m {highest}"] if highest != before else [])
    powered.mode(before)
    (power,) = (check for check in checks.examine(powered.root) if check.name == "power")
    fastest = power.fix.removeprefix("sudo nvpmodel -m ") or str(before)
    assert int(fastest) == highest or not modes


@pytest.mark.parametrize("action", ["max", "restore", "show"])
def test_a_dry_run_changes_nothing(action: str, powered: Board) -> None:
    """Every command is shown, none that changes anything is called, and no file changes."""
    if action == "restore":
        powered.run("power.sh", "max")
    done, before = len(_changes(powered)), powered.files()
    result = powered.run("power.sh", "--dry-run", action)
    assert result.returncode == 0, result.stderr
    assert _changes(powered)[done:] == []
    assert powered.files() == before
    shown = {"max": "nvpmodel -m 2", "restore": "nvpmodel -m 0", "show": "jetson_clocks --show"}[action]
    assert any(line.startswith("+ ") and line.endswith(shown) for line in result.stdout.splitlines())


def test_a_dry_run_shows_what_the_run_does(powered: Board) -> None:
    """A dry run prints the lines of a real run, except for the last one."""
    shown = powered.run("power.sh", "--dry-run", "max").stdout.splitlines()
    done = powered.run("power.sh", "max").stdout.splitlines()
    assert shown == done[:-1]
    assert len(shown) == 6


def test_show_names_the_mode_and_what_is_saved(powered: Board) -> None:
    """show prints the mode by name, the saved one, and the clocks."""
    powered.run("power.sh", "max")
    lines = powered.run("power.sh", "show").stdout.splitlines()
    assert lines[:2] == ["power mode: MAXN_SUPER", "saved: 15W"]
    assert lines[-1] == "locked"


def test_without_nvpmodel_it_says_where_it_belongs(board: Board) -> None:
    """On a machine other than a Jetson the error names the missing program."""
    result = board.run("power.sh", "max")
    assert result.returncode == 1
    assert result.stderr.startswith("error: nvpmodel is not installed\nhint: ")


def test_an_action_is_needed(powered: Board) -> None:
    """Without max, restore or show nothing is done, and the exit code is 2."""
    result = powered.run("power.sh")
    assert (result.returncode, _changes(powered)) == (2, [])
