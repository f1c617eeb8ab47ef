"""``edge-resnet deploy`` as users see it."""

from __future__ import annotations

import errno
import getpass
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusals import assert_refused

from edge_resnet.artifact.folder import Artifact

Cli = Callable[..., Any]
CAMERA = "rtsp://admin:hunter2@10.0.0.7/stream"
DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"


@pytest.fixture
def artifact(tiny_artifacts: dict[str, Artifact]) -> str:
    """An artifact that no test changes."""
    return str(tiny_artifacts["int8"].folder)


def _value(unit: str, key: str) -> str:
    return re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)[0]


def test_the_unit_is_on_stdout_and_the_steps_on_stderr(cli: Cli, artifact: str) -> None:
    """A pipe gets only the unit, which runs this Python and this artifact."""
    outcome = cli("deploy", "systemd", artifact)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("# edge-resnet.service")
    assert _value(outcome.out, "ExecStart").startswith(f"{sys.executable} -I ")
    assert f" run {artifact} --headless --keep-trying --source camera:0" in outcome.out
    assert "systemctl enable --now edge-resnet" in outcome.err


def test_print_gives_the_unit_alone(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """No steps and no files, even if a password would need one."""
    outcome = cli("deploy", "systemd", artifact, "--source", CAMERA, "--print")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert "hunter2" not in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_the_unit_goes_to_a_file(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """-o writes it, and the steps name that file in the right order."""
    outcome = cli("deploy", "systemd", artifact, "-o", "my unit.service", "--name", "door")
    assert outcome.code == 0, outcome.err
    assert _value((tmp_path / "my unit.service").read_text(encoding="utf-8"), "StateDirectory") == "door"
    steps = [line for line in outcome.out.splitlines() if not line.startswith("#")]
    assert steps[-5:] == [
        "sudo cp 'my unit.service' /etc/systemd/system/door.service",
        "sudo systemctl daemon-reload",
        "sudo systemctl enable --now door",
        "systemctl status door",
        "journalctl -u door -f",
    ]


def test_the_steps_are_a_shell_s(cli: Cli, artifact: str) -> None:
    """They can be pasted as they are."""
    outcome = cli("deploy", "systemd", artifact, "--source", CAMERA, "--web", "0.0.0.0:8080", "-o", "a b.service")
    assert outcome.code == 0, outcome.err
    subprocess.run(["sh", "-n"], input=outcome.out, text=True, check=True)


def test_files_get_their_whole_name(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """A file in this folder gets its absolute path; other sources stay as they are."""
    (tmp_path / "clip.mp4").touch()
    outcome = cli("deploy", "systemd", artifact, "--source", "clip.mp4", "--source", "0", "--source", "csi://0", "--print")
    assert f" --source {tmp_path}/clip.mp4 --source 0 --source csi://0\n" in outcome.out


def test_a_folder_that_is_not_there_is_one_line(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """Neither command ends in a traceback if it cannot write."""
    assert_refused(cli("deploy", "systemd", artifact, "-o", "nowhere/x.service"), "cannot write nowhere/x.service")
    (tmp_path / "file").touch()
    assert_refused(cli("deploy", "files", "file/x"), "cannot write file/x")


def test_options_of_run_follow_two_dashes(cli: Cli, artifact: str) -> None:
    """They come last in the command."""
    outcome = cli("deploy", "systemd", artifact, "--print", "--", "--backend", "onnxruntime", "--top", "1")
    assert _value(outcome.out, "ExecStart").endswith(" --backend onnxruntime --top 1")


def test_a_password_goes_to_a_file_of_ones_own(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """Mode 600 whatever the umask, and not in the unit or the output; the steps hand the file to root."""
    before = os.umask(0)
    try:
        outcome = cli("deploy", "systemd", artifact, "--source", CAMERA, "--source", "camera:0", "-o", "x.service")
    finally:
        os.umask(before)
    assert outcome.code == 0, outcome.err
    unit, secret = tmp_path / "x.service", tmp_path / "edge-resnet.env"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert f'EDGE_RESNET_SOURCE="{CAMERA} camera:0"' in secret.read_text(encoding="utf-8")
    assert "hunter2" not in unit.read_text(encoding="utf-8") + outcome.out + outcome.err
    assert "sudo install -D -o root -g root -m 600 edge-resnet.env /etc/edge-resnet/edge-resnet.env" in outcome.out


def test_a_password_is_not_put_on_stdout(cli: Cli, artifact: str) -> None:
    """Without a file there is no place for it, and the unit alone would not run."""
    outcome = cli("deploy", "systemd", artifact, "--source", CAMERA)
    assert_refused(outcome, "password", "-o edge-resnet.service")
    assert "hunter2" not in outcome.err


def test_a_page_for_others_gets_a_token(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """A new token each time, in the file of secrets; the sources stay in the unit."""
    tokens = set()
    for name in ("a", "b"):
        outcome = cli("deploy", "systemd", artifact, "--web", "0.0.0.0:8080", "--name", name, "-o", f"{name}.service")
        assert outcome.code == 0, outcome.err
        found = re.search(r'^EDGE_RESNET_WEB_TOKEN="([\w-]{32})"$', (tmp_path / f"{name}.env").read_text(encoding="utf-8"), re.M)
        assert found
        tokens.add(found[1])
        command = _value((tmp_path / f"{name}.service").read_text(encoding="utf-8"), "ExecStart")
        assert command.endswith("--source camera:0 --web 0.0.0.0:8080")
        assert found[1] not in outcome.out
        assert "EDGE_RESNET_WEB_TOKEN" in outcome.out
    assert len(tokens) == 2


def test_a_page_behind_a_proxy_gets_a_token(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """Others reach it through the proxy, although it listens on loopback."""
    web = ("--web", "127.0.0.1:8080", "-o", "a.service", "--", "--web-origin", "https://cam.example")
    outcome = cli("deploy", "systemd", artifact, *web)
    assert outcome.code == 0, outcome.err
    assert "EDGE_RESNET_WEB_TOKEN=" in (tmp_path / "edge-resnet.env").read_text(encoding="utf-8")


@pytest.mark.parametrize("web", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"])
def test_a_page_for_this_machine_needs_none(cli: Cli, artifact: str, web: str) -> None:
    """A page that only this machine can reach has no token, and so no file."""
    outcome = cli("deploy", "systemd", artifact, "--web", web)
    assert outcome.code == 0, outcome.err
    assert _value(outcome.out, "ExecStart").replace('"', "").endswith(f" --web {web}")
    assert "\nEnvironmentFile=-" in outcome.out


def test_files_that_are_there_are_kept(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """Neither unit nor secrets are overwritten without --force, which replaces both and the mode."""
    secret = tmp_path / "edge-resnet.env"
    secret.write_text("mine", encoding="utf-8")
    secret.chmod(0o644)
    words = ("deploy", "systemd", artifact, "--source", CAMERA, "-o", "x.service")
    assert_refused(cli(*words), "edge-resnet.env", "--force")
    assert secret.read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "x.service").exists()
    assert cli(*words, "--force").code == 0
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert "hunter2" in secret.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--user", "root"], "root"), (["--name", "a b"], "name"), (["--memory-max", "lots"], "memory"),
        (["--web", "8080"], "HOST:PORT"), (["--web", "127.0.0.1:80"], "1024"), (["--print", "-o", "x"], "--print"),
        (["--source", "a\nb"], "control"), (["--writable", "nowhere"], "nowhere"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(cli: Cli, artifact: str, tmp_path: Path, words: list[str], said: str) -> None:
    """Refused with a hint, and no file is left."""
    assert_refused(cli("deploy", "systemd", artifact, *words), said)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_artifact_is_refused(cli: Cli, tmp_path: Path) -> None:
    """A service that cannot start is not written."""
    outcome = cli("deploy", "systemd", str(tmp_path), "-o", "x.service")
    assert outcome.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_the_service_may_not_enter_is_named(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """A home of mode 750 is the most common cause of 203/EXEC; there is no note if the service runs as oneself."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o750)
    (closed / "out").mkdir()
    outcome = cli("deploy", "systemd", artifact, "--writable", "closed/out")
    assert outcome.code == 0, outcome.err
    assert f"# {closed} is closed to edge-resnet" in outcome.err
    if getpass.getuser() != "root":
        own = cli("deploy", "systemd", artifact, "--writable", "closed/out", "--user", getpass.getuser())
        assert "is closed to" not in own.err


def test_the_command_that_systemd_will_run_runs(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """The command of the unit, run as it is, classifies frames and ends."""
    unit = cli("deploy", "systemd", artifact, "--source", "synthetic://?frames=3", "--print").out
    result = subprocess.run(
        shlex.split(_value(unit, "ExecStart")), capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert "3 frames" in result.stderr


def test_run_takes_its_sources_from_the_file_of_secrets(cli: Cli, artifact: str, tmp_path: Path) -> None:
    """If the unit has no source, run reads EDGE_RESNET_SOURCE, which keeps passwords out of ps as well."""
    outcome = cli("deploy", "systemd", artifact, "--source", CAMERA, "-o", "x.service")
    assert outcome.code == 0, outcome.err
    command = _value((tmp_path / "x.service").read_text(encoding="utf-8"), "ExecStart")
    environment = {**os.environ, "EDGE_RESNET_SOURCE": "synthetic://?frames=2 synthetic://?frames=1&seed=1"}
    result = subprocess.run(
        shlex.split(command), capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert "3 frames" in result.stderr


def test_the_shipped_files_are_listed(cli: Cli) -> None:
    """Without a folder nothing is copied; --json prints only JSON."""
    listed = cli("deploy", "files").out.splitlines()
    assert {"README.md", "jetson/install.sh", "docker/cpu.Dockerfile", "systemd/edge-resnet.service.in"} <= set(listed)
    assert json.loads(cli("deploy", "files", "--json").out) == {"folder": None, "files": listed}
    assert not [name for name in listed if "__" in name or "/." in name]


def test_the_shipped_files_are_copied(cli: Cli, tmp_path: Path) -> None:
    """Byte for byte; scripts are executable, and changed files are not overwritten without --force."""
    outcome = cli("deploy", "files", "out")
    assert outcome.code == 0, outcome.err
    for name in cli("deploy", "files").out.splitlines():
        assert (tmp_path / "out" / name).read_bytes() == (DEPLOY / name).read_bytes()
    assert os.access(tmp_path / "out/jetson/check.sh", os.X_OK)
    assert not os.access(tmp_path / "out/README.md", os.X_OK)
    (tmp_path / "out/README.md").write_text("mine", encoding="utf-8")
    assert_refused(cli("deploy", "files", "out"), "--force")
    assert (tmp_path / "out/README.md").read_text(encoding="utf-8") == "mine"
    assert cli("deploy", "files", "out", "--force").code == 0


def test_a_full_disk_keeps_the_files_before(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with --force: no file is replaced before all of them are complete."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "out").mkdir()
    (tmp_path / "out/README.md").write_text("mine", encoding="utf-8")
    monkeypatch.setattr(os, "fsync", full)
    assert_refused(cli("deploy", "files", "out", "--force"), "No space left")
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [(path.name, path.read_text(encoding="utf-8")) for path in left] == [("README.md", "mine")]


@pytest.mark.parametrize("command", ["systemd", "files"])
def test_help_has_an_example(cli: Cli, command: str) -> None:
    """Each command shows an example in addition to its usage."""
    text = " ".join(cli("deploy", command, "--help").out.split())
    assert text.count(f"edge-resnet deploy {command}") >= 2
    assert command in cli("deploy", "--help").out
