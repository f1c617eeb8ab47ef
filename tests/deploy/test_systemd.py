"""The unit as systemd reads it: verified, rated, and loaded by a manager that starts nothing."""

from __future__ import annotations

import os
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from children import started

from edge_resnet.artifact.folder import Artifact
from edge_resnet.deployment.systemd import ServiceOptions, render_unit

#: What systemd-analyze may find at most, of 10: 1.8 with systemd 252. Cameras, a GPU and the network are what is left.
MAX_EXPOSED = 2.5
MANAGER = Path("/lib/systemd/systemd")


@pytest.fixture(scope="module")
def analyze() -> str:
    """systemd-analyze, or a skip."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed (package systemd)")
    return found


@pytest.fixture
def options(tmp_path: Path) -> ServiceOptions:
    """A service of this Python with names that need quoting, and every kind of source."""
    artifact, out = tmp_path / "50% of $a model", tmp_path / "answers of today"
    artifact.mkdir()
    out.mkdir()
    return ServiceOptions(
        Path(sys.executable),
        artifact,
        sources=("camera:0", "csi://0", "clips/a b.mp4"),
        run_options=("--label", 'a "b" \\ %h $HOME ${USER} ;', ";", "", "'", "ü", "mqtt://a:b@c/d"),
        writable=(out,),
        devices=(Path("/dev/null"),),
    )


def _put(folder: Path, options: ServiceOptions) -> Path:
    path = folder / f"{options.name}.service"
    path.write_text(render_unit(options), encoding="utf-8")
    return path


@pytest.mark.parametrize("change", [{}, {"sources": ("camera:0",)}, {"sources": ("rtsp://u:p@cam/1",), "name": "door"}], ids=str)
def test_systemd_verifies_it(analyze: str, options: ServiceOptions, tmp_path: Path, change: dict[str, object]) -> None:
    """systemd-analyze verify reports nothing: no unknown setting, no ignored value, and the program exists."""
    path = _put(tmp_path, replace(options, **change))  # type: ignore[arg-type]
    result = subprocess.run([analyze, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False)
    # Remarks on other units of this machine are not about this one.
    about = [line for line in result.stderr.splitlines() if path.name in line or str(path) in line]
    assert about == []
    assert result.returncode == 0, result.stderr


def test_systemd_verify_would_complain(analyze: str, options: ServiceOptions, tmp_path: Path) -> None:
    """A misspelt setting is reported, so the test above can fail."""
    path = _put(tmp_path, options)
    path.write_text(path.read_text(encoding="utf-8").replace("OOMPolicy=kill", "OOMPolicy=kil"), encoding="utf-8")
    result = subprocess.run([analyze, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False)
    assert path.name in result.stderr


def test_it_is_little_exposed(analyze: str, options: ServiceOptions, tmp_path: Path) -> None:
    """systemd-analyze security rates its exposure 2.5 of 10 or lower; a bare unit has more than 9."""
    path = _put(tmp_path, replace(options, sources=("camera:0",)))
    result = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(path)], capture_output=True, text=True, check=False
    )
    if "unrecognized option" in result.stderr:
        pytest.skip("systemd-analyze security --offline needs systemd 250")
    rated = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
    assert rated, result.stdout + result.stderr
    assert float(rated[1]) <= MAX_EXPOSED


@pytest.fixture
def loaded(options: ServiceOptions, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The lines in which systemd's manager shows how it read the unit; in test mode it starts nothing."""
    if not MANAGER.exists():
        pytest.skip("systemd's manager is not installed (package systemd)")
    # The manager reads units as another user: root is refused in test mode, and pytest's folders are closed to others.
    folder = Path("/tmp") / f"edge-resnet-units-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755)
    try:
        _put(folder, options)
        words = [str(MANAGER), "--test", "--system", f"--unit={options.name}.service"]
        if os.geteuid() == 0:
            words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *words]
        environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:", "SYSTEMD_LOG_LEVEL": "info", "LC_ALL": "C.UTF-8"}
        result = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, timeout=60)
    finally:
        shutil.rmtree(folder)
    text = result.stdout + result.stderr
    if f"Unit {options.name}.service:" not in text:
        pytest.skip(f"systemd's manager does not run in test mode here: {text[-300:]}")
    return [line.strip() for line in text.partition(f"-> Unit {options.name}.service:")[2].partition("-> Unit ")[0].splitlines()]


def test_the_words_arrive_as_they_were_given(loaded: list[str], options: ServiceOptions) -> None:
    """Quotes, backslashes, percent signs, dollars and semicolons reach the program after systemd's unquoting."""
    command = next(line for line in loaded if line.startswith("Command Line: ")).removeprefix("Command Line: ")
    if '"' not in command:
        pytest.skip("this systemd prints a command without quotes (before 250)")
    printed = subprocess.run(["sh", "-c", rf"printf '%s\0' {command}"], capture_output=True, text=True, check=True).stdout
    # $$ becomes $ only when systemd starts the program.
    words = [word.replace("$$", "$") for word in printed.split("\0")[:-1]]
    assert words[:7] == [str(options.python), "-I", "-u", "-X", "faulthandler", "-m", "edge_resnet"]
    assert words[7:11] == ["run", str(options.artifact), "--headless", "--keep-trying"]
    assert words[11:17] == ["--source", "camera:0", "--source", "csi://0", "--source", "clips/a b.mp4"]
    assert words[17:-1] == list(options.run_options)[:-1]
    assert words[-1] == "${EDGE_RESNET_OPTION_1}"
    assert sum(line.startswith("Command Line: ") for line in loaded) == 1, "a second command was made of a semicolon"


@pytest.mark.parametrize(
    "line",
    [
        "Type: notify", "Restart: always", "NotifyAccess: main", "OOMPolicy: kill", "RestartSec: 10s", "TimeoutStartSec: 30min",
        "TimeoutStopSec: 20s", "WatchdogSec: 1min", "KillMode: mixed", "User: edge-resnet", "SupplementaryGroups: video render",
        "WorkingDirectory: /var/lib/edge-resnet", "ProtectSystem: strict", "PrivateDevices: no", "MemoryDenyWriteExecute: no",
        "DynamicUser: no", "DevicePolicy: closed",
    ],
)  # fmt: skip
def test_systemd_reads_the_settings(loaded: list[str], line: str) -> None:
    """The manager shows the intended values."""
    assert line in loaded


def test_paths_with_blanks_and_percent_signs_are_writable(loaded: list[str], options: ServiceOptions) -> None:
    """The folders are the intended ones: no specifier is expanded and no path is split."""
    writable = next(line for line in loaded if line.startswith("ReadWritePaths: "))
    assert f"-{options.artifact}/engines {options.writable[0]}" in writable


def test_a_run_makes_no_call_that_the_unit_forbids(analyze: str, tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """Every system call of a run on this CPU is in the filter of the unit."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed (package strace)")
    log = tmp_path / "calls"
    run = [sys.executable, "-I", "-u", "-X", "faulthandler", "-m", "edge_resnet", "run", str(tiny_artifacts["int8"].folder)]
    result = subprocess.run(
        [strace, "-f", "-qq", "-o", str(log), *run, "--headless", "--source", "synthetic://?frames=3"],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    if "PTRACE" in result.stderr or "ptrace" in result.stderr:
        pytest.skip(f"strace may not look at processes here: {result.stderr[-200:]}")
    assert "3 frames" in result.stderr
    calls = set(re.findall(r"^\d+ +([a-z][a-z0-9_]*)\(", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE))
    assert len(calls) > 20
    assert calls - _allowed(analyze) == set()


@pytest.fixture
def endless(options: ServiceOptions, tiny_artifacts: dict[str, Artifact]) -> list[str]:
    """The command of the unit for a run that does not end by itself and writes predictions to stdout."""
    unit = render_unit(
        replace(
            options,
            artifact=tiny_artifacts["int8"].folder,
            sources=("synthetic://?frames=1000000",),
            run_options=("--jsonl", "-"),
        )
    )
    return shlex.split(next(line for line in unit.splitlines() if line.startswith("ExecStart=")).removeprefix("ExecStart="))


def test_a_run_that_hangs_leaves_a_traceback(endless: list[str], tmp_path: Path) -> None:
    """On SIGABRT, which the watchdog sends, the program writes the tracebacks of all threads to the journal."""
    with started(
        endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=_no_core
    ) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("{")  # it is at work
        process.send_signal(signal.SIGABRT)
        _, said = process.communicate(timeout=60)
    # Before Python 3.12 the tracebacks of running threads are read without a lock, which can itself crash.
    assert process.returncode in (-signal.SIGABRT, -signal.SIGSEGV)
    assert "Fatal Python error: Aborted" in said
    assert "edge_resnet/streaming" in said


def test_systemd_is_told_of_a_whole_life(endless: list[str], tmp_path: Path) -> None:
    """Ready with the first prediction, several heartbeats, stopping after SIGTERM, then an exit that counts as success."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"}
        with (
            (tmp_path / "out").open("wb") as out,
            started(endless, stdout=out, stderr=out, cwd=tmp_path, env=environment) as run,
        ):
            said = [manager.recv(999)]
            while b"READY=1" not in said[-1]:
                said.append(manager.recv(999))
            said += [manager.recv(999) for _ in range(5)]
            run.send_signal(signal.SIGTERM)
            while b"STOPPING=1" not in said[-1]:
                said.append(manager.recv(999))
            assert run.wait(timeout=20) == 0
    told = {message for message in said if not message.startswith((b"WATCHDOG=", b"STATUS="))}
    assert told == {b"READY=1", b"STOPPING=1"}
    assert said.count(b"WATCHDOG=1") >= 3


def _no_core() -> None:
    """As the unit's LimitCORE=0."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _allowed(analyze: str) -> set[str]:
    """The calls of @system-service, the sets in it opened."""
    text = subprocess.run([analyze, "syscall-filter"], capture_output=True, text=True, check=True).stdout
    sets: dict[str, list[str]] = {}
    for line in text.splitlines():
        word = line.strip()
        if line.startswith("@"):
            sets[word] = members = []
        elif word and not word.startswith("#") and sets:
            members.append(word)

    def flat(name: str) -> set[str]:
        return {call for word in sets[name] for call in (flat(word) if word.startswith("@") else {word})}

    return flat("@system-service")
