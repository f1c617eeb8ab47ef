"""The text of the unit: what it contains, what it must not contain, and what is refused. tests/deploy runs systemd on it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.errors import ConfigError
from edge_resnet.deployment.devicefiles import closed_folders, device_nodes
from edge_resnet.deployment.systemd import (
    ServiceOptions,
    is_secret,
    render_environment,
    render_unit,
    secrets_of,
)

CAMERA = "rtsp://admin:hunter2@10.0.0.7/stream"


@pytest.fixture
def options(tmp_path: Path) -> ServiceOptions:
    """A service whose paths exist."""
    python, artifact = tmp_path / "venv/bin/python", tmp_path / "resnet50-int8"
    python.parent.mkdir(parents=True)
    python.touch()
    artifact.mkdir()
    return ServiceOptions(python, artifact)


def _values(unit: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in unit.splitlines() if line.startswith(f"{key}=")]


def test_the_command_is_this_python_and_run(options: ServiceOptions) -> None:
    """Isolated, unbuffered, with tracebacks on a crash, headless, and each source and option an argument."""
    found = replace(options, sources=("camera:0", "/dev/video2"), run_options=("--top", "1"))
    words = f"-I -u -X faulthandler -m edge_resnet run {options.artifact} --headless --keep-trying"
    assert _values(render_unit(found), "ExecStart") == [
        f"{options.python} {words} --source camera:0 --source /dev/video2 --top 1"
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"), ("User", "edge-resnet"), ("SupplementaryGroups", "video render"), ("Restart", "always"),
        ("StartLimitIntervalSec", "0"), ("StateDirectory", "edge-resnet"), ("CacheDirectory", "edge-resnet"),
        ("ProtectSystem", "strict"), ("NoNewPrivileges", "yes"), ("DevicePolicy", "closed"), ("PrivateTmp", "yes"),
        ("MemoryMax", "75%"), ("MemoryHigh", "67%"), ("WatchdogSec", "60"), ("WorkingDirectory", "%S/edge-resnet"),
    ],
)  # fmt: skip
def test_what_every_unit_says(options: ServiceOptions, key: str, value: str) -> None:
    """The settings that an unattended device depends on."""
    assert _values(render_unit(options), key) == [value]


@pytest.mark.parametrize("key", ["PrivateDevices", "MemoryDenyWriteExecute", "PrivateUsers", "PrivateNetwork", "ProcSubset"])
def test_what_no_unit_may_say(options: ServiceOptions, key: str) -> None:
    """Each would remove the GPU, the cameras or the board's files; the unit's comments say so."""
    unit = render_unit(options)
    assert _values(unit, key) == []
    assert f"{key}" in unit


def test_every_restriction_has_its_reason(options: ServiceOptions) -> None:
    """Each paragraph of the unit starts with a comment above the first setting."""
    section = render_unit(options).partition("[Service]")[2].partition("[Install]")[0]
    for line, before in zip(section.splitlines()[1:], section.splitlines(), strict=False):
        if line.startswith("# ---"):
            continue
        if "=" in line and not line.startswith("#") and (not before or before.startswith("# ---")):
            pytest.fail(f"no reason above {line}")


def test_a_second_service_shares_nothing(options: ServiceOptions) -> None:
    """Another name means other folders for state, cache and secrets."""
    unit = render_unit(replace(options, name="door", sources=(CAMERA,)))
    assert _values(unit, "StateDirectory") == _values(unit, "CacheDirectory") == _values(unit, "SyslogIdentifier") == ["door"]
    assert _values(unit, "EnvironmentFile") == ["/etc/edge-resnet/door.env"]
    assert _values(unit, "Environment") == ["HOME=%S/door XDG_CACHE_HOME=%C/door CUDA_CACHE_PATH=%C/door/nv"]


def test_only_engines_and_named_folders_are_writable(options: ServiceOptions, tmp_path: Path) -> None:
    """The source in the artifact stays read-only: only engines are written to it."""
    out = tmp_path / "answers of today"
    out.mkdir()
    unit = render_unit(replace(options, writable=(out,)))
    assert _values(unit, "ReadWritePaths") == [f"-{options.artifact}/engines", f'"{out}"']


def test_csi_cameras_keep_the_shared_tmp(options: ServiceOptions) -> None:
    """The socket of nvargus-daemon is in /tmp, which a private /tmp would hide."""
    unit = render_unit(replace(options, sources=("camera:0", "csi://0")))
    assert _values(unit, "PrivateTmp") == ["no"]
    assert "/tmp/argus_socket" in unit


def test_homes_are_hidden_unless_something_runs_from_them(options: ServiceOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """ProtectHome=yes would hide an environment in a home; its python is a link, often into a home."""
    home = options.python.parent.parent / "home"
    monkeypatch.setattr("edge_resnet.deployment.systemd._HOMES", (home,))
    assert _values(render_unit(options), "ProtectHome") == ["yes"]
    assert _values(render_unit(replace(options, sources=(f"{home}/me/clip.mp4",))), "ProtectHome") == ["read-only"]
    target = home / "me/python"
    target.parent.mkdir(parents=True)
    target.touch()
    options.python.unlink()
    options.python.symlink_to(target)
    assert _values(render_unit(options), "ProtectHome") == ["read-only"]


def test_nodes_of_the_gpu_are_allowed(options: ServiceOptions) -> None:
    """The nodes found on the device are listed besides the groups."""
    unit = render_unit(replace(options, devices=(Path("/dev/nvhost-gpu"), Path("/dev/nvsciipc"))))
    assert {"/dev/nvhost-gpu rw", "/dev/nvsciipc rw", "char-81 rw"} <= set(_values(unit, "DeviceAllow"))


def test_device_nodes_are_devices(tmp_path: Path) -> None:
    """Only character devices with the names of GPUs count, not files or disks."""
    (tmp_path / "nvmap").touch()
    (tmp_path / "dri").mkdir()
    (tmp_path / "dri/renderD128").symlink_to("/dev/null")
    (tmp_path / "nvhost-gpu").symlink_to("/dev/zero")
    (tmp_path / "sda").symlink_to("/dev/null")
    assert device_nodes(tmp_path) == (tmp_path / "dri/renderD128", tmp_path / "nvhost-gpu")


@pytest.mark.parametrize(
    ("uri", "secret"),
    [
        (CAMERA, True), ("rtsp://admin@cam/1", True), ("http://cam/video?user=a&pwd=b", True), ("RTSP://a:b/c@cam", True),
        ("rtsp://cam/user=a_password=b", True), ("mqtts://a:b@broker/topic", True),
        ("rtsp://cam/1", False), ("camera:0", False), ("/dev/video0", False), ("synthetic://?frames=3", False),
        ("clips/me@home.mp4", False), ("csi://0", False),
    ],
)  # fmt: skip
def test_which_sources_are_secret(uri: str, secret: bool) -> None:
    """A user, a password, or a query that may contain them; a file name is no secret."""
    assert is_secret(uri) is secret


def test_a_password_is_not_in_the_unit(options: ServiceOptions) -> None:
    """One secret source moves all of them to the file: run reads the variable only if no source is given."""
    found = replace(options, sources=("camera:0", CAMERA), secrets=(("EDGE_RESNET_WEB_TOKEN", "t0ken-t0ken"),))
    unit = render_unit(found)
    assert "hunter2" not in unit
    assert "t0ken" not in unit
    assert "--source" not in unit
    assert secrets_of(found) == {"EDGE_RESNET_WEB_TOKEN": "t0ken-t0ken", "EDGE_RESNET_SOURCE": f"camera:0 {CAMERA}"}


def test_without_secrets_the_file_need_not_be_there(options: ServiceOptions) -> None:
    """A unit must not require a file that does not exist, but one with secrets must require it."""
    assert secrets_of(options) == {}
    assert _values(render_unit(options), "EnvironmentFile") == ["-/etc/edge-resnet/edge-resnet.env"]


def test_an_option_with_a_password_becomes_a_variable(options: ServiceOptions) -> None:
    """The URI of the broker goes to the file; systemd substitutes it when it starts the program."""
    broker = "mqtt://user:hunter2@broker/topic"
    found = replace(options, run_options=("--mqtt", broker, "--top", "1"))
    assert _values(render_unit(found), "ExecStart")[0].endswith(" --source camera:0 --mqtt ${EDGE_RESNET_OPTION_1} --top 1")
    assert secrets_of(found) == {"EDGE_RESNET_OPTION_1": broker}


def test_a_token_alone_leaves_the_sources_where_they_were(options: ServiceOptions) -> None:
    """Sources without a password stay visible in the unit."""
    unit = render_unit(replace(options, secrets=(("EDGE_RESNET_WEB_TOKEN", "x" * 20),)))
    assert "--source camera:0" in unit
    assert _values(unit, "EnvironmentFile") == ["/etc/edge-resnet/edge-resnet.env"]


def test_a_space_would_make_two_sources(options: ServiceOptions) -> None:
    """A name with a space is refused beside a password, without showing the password."""
    with pytest.raises(ConfigError, match="space") as refused:
        render_unit(replace(options, sources=(CAMERA + " x", "camera:0")))
    assert "hunter2" not in refused.value.message + refused.value.hint
    assert '--source "/tmp/a b.mp4"' in render_unit(replace(options, sources=("/tmp/a b.mp4",)))


@given(st.text(st.characters(exclude_categories=("C", "Z"))))
def test_a_shell_reads_the_environment_file_as_it_was_meant(value: str) -> None:
    """The quoting is common to shells and systemd: no character of a password is lost or has a meaning."""
    script = render_environment({"X": value}) + 'printf %s "$X"\n'
    assert subprocess.run(["sh"], input=script.encode(), capture_output=True, check=True).stdout.decode() == value


BAD: list[dict[str, Any]] = [
    {"name": "../x"}, {"name": "a b"}, {"name": ""}, {"name": "a.service"}, {"name": "a@b"}, {"name": "x\nUser=root"},
    {"name": "%n"},     {"user": "root"}, {"user": "a b"}, {"user": ""}, {"user": "x\nUser=root"}, {"user": "%u"},
    {"groups": ()}, {"groups": ("video", "a b")},
    {"memory_max": "lots"}, {"memory_max": "0"}, {"memory_max": "101%"}, {"memory_max": "-1G"}, {"memory_max": "1G\nUser=root"},
    {"memory_max": "²G"},
    {"sources": ()}, {"sources": ("camera:0\nUser=root",)}, {"sources": ("a\x00b",)}, {"sources": ("a\x1bb",)},
    {"sources": ("a\u2028b",)}, {"sources": ("a\udcffb",)}, {"run_options": ("--top\n1",)},
    {"run_options": ("--web-token", "x")}, {"run_options": ("--password=x",)},
    {"artifact": Path("artifacts/x")}, {"artifact": Path("/nowhere/at/all")}, {"artifact": Path("/tmp/../tmp")},
    {"python": Path("/tmp/a\nb")}, {"python": Path('/tmp/a"b')}, {"python": Path("/tmp/a$b")}, {"writable": (Path("x"),)},
    {"writable": (Path("/nowhere/at/all"),)}, {"devices": (Path("/dev/a\nb"),)}, {"artifact": Path("/tmp/a\\b")},
]  # fmt: skip


@pytest.mark.parametrize("change", BAD, ids=ascii)
def test_values_that_systemd_would_misread_are_refused(options: ServiceOptions, change: dict[str, Any]) -> None:
    """Names, paths and values that systemd would read differently are refused with a hint."""
    with pytest.raises(ConfigError) as refused:
        render_unit(replace(options, **change))
    assert refused.value.hint
    assert refused.value.message.isprintable()


def test_a_refusal_does_not_show_the_password(options: ServiceOptions) -> None:
    """Errors end up in logs and bug reports."""
    with pytest.raises(ConfigError) as refused:
        render_unit(replace(options, sources=(CAMERA + "\n",)))
    assert "hunter2" not in refused.value.message


@pytest.mark.parametrize(
    ("maximum", "high"),
    [
        ("4G", "3686M"),
        ("1T", "921G"),
        ("500M", "460800K"),
        ("1000000", "900000"),
        ("1%", "1%"),
        ("100%", "90%"),
        ("infinity",) * 2,
    ],
)
def test_memory_is_reclaimed_before_the_limit(options: ServiceOptions, maximum: str, high: str) -> None:
    """MemoryHigh is nine tenths of MemoryMax."""
    unit = render_unit(replace(options, memory_max=maximum))
    assert (_values(unit, "MemoryMax"), _values(unit, "MemoryHigh")) == ([maximum], [high])


def test_closed_folders_are_those_that_others_cannot_enter(tmp_path: Path) -> None:
    """Every parent folder counts, also behind a link."""
    hidden, shown = tmp_path / "hidden", tmp_path / "shown"
    for folder, mode in ((hidden, 0o750), (shown, 0o755)):
        folder.mkdir()
        (folder / "python").touch()
        folder.chmod(mode)
    (shown / "link").symlink_to(hidden / "python")
    before = set(closed_folders([shown / "python"]))  # pytest's own folders are closed
    assert set(closed_folders([shown / "link"])) - before == {hidden}
