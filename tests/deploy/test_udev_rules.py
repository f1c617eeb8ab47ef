"""The camera rules: udev accepts every line, and they create the documented names."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from boards import JETSON

RULES = JETSON / "99-edge-resnet-cameras.rules"
#: udev(7): keys that are compared and keys that are set; ENV may be both.
MATCHED = {"ACTION", "SUBSYSTEM", "SUBSYSTEMS", "KERNEL", "ATTR", "ENV"}
ASSIGNED = {"GROUP", "MODE", "SYMLINK", "GOTO", "LABEL", "ENV"}
TERM = re.compile(r'([A-Z]+)(\{[^}]+\})?(==|!=|\+=|=)"([^"]*)"')


def _rules() -> list[list[tuple[str, str, str, str]]]:
    lines = [line for line in RULES.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    rules = []
    for line in lines:
        terms = [TERM.fullmatch(term.strip()) for term in line.split(",")]
        assert all(terms), line
        rules.append([(term[1], term[2] or "", term[3], term[4]) for term in terms if term])
    return rules


def test_udevadm_verifies_them() -> None:
    """udevadm verify (systemd 254 or newer) reports nothing."""
    udevadm = shutil.which("udevadm")
    if udevadm is None or "verify" not in subprocess.run([udevadm, "--help"], capture_output=True, text=True, check=False).stdout:
        pytest.skip("no udevadm with verify (systemd 254 or newer)")
    result = subprocess.run([udevadm, "verify", str(RULES)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_term_compares_or_sets_what_it_may() -> None:
    """Comparing keys have == or !=, setting keys = or +=: KERNEL="video0" is the classic mistake that matches everything."""
    for rule in _rules():
        for key, _, operator, _ in rule:
            allowed = MATCHED if operator in ("==", "!=") else ASSIGNED
            assert key in allowed, f"{key}{operator}"


def test_every_jump_lands() -> None:
    """Each GOTO has its one LABEL further down."""
    rules = _rules()
    labels = {value: at for at, rule in enumerate(rules) for key, _, _, value in rule if key == "LABEL"}
    jumps = [(value, at) for at, rule in enumerate(rules) for key, _, _, value in rule if key == "GOTO"]
    assert jumps
    assert all(labels[value] > at for value, at in jumps)


def _apply(device: dict[str, str], *, usb: bool) -> dict[str, list[str]]:
    """What the rules set for a device: udev's order, one pass, GOTO followed; globs are those of the rules."""
    set_to: dict[str, list[str]] = {}
    environment = {key: value for key, value in device.items() if key.startswith("ENV")}
    rules, at = _rules(), 0
    while at < len(rules):
        jump = None
        for key, attribute, operator, value in rules[at]:
            if operator in ("==", "!="):
                found = "usb" if key == "SUBSYSTEMS" and usb else {**device, **environment}.get(key + attribute, "")
                pattern = re.escape(value).replace(r"\[0\-9\]", "[0-9]").replace(r"\*", ".*").replace(r"\?", ".")
                if (re.fullmatch(pattern, found) is not None) != (operator == "=="):
                    break
            elif key == "ENV":
                environment[key + attribute] = value
            elif key == "GOTO":
                jump = value
            elif key != "LABEL":
                filled = re.sub(r"\$env\{(\w+)\}", lambda match: environment[f"ENV{{{match[1]}}}"], value)
                set_to.setdefault(key, []).append(filled)
        labels = {value: n for n, rule in enumerate(rules) for key, _, _, value in rule if key == "LABEL"}
        at = labels[jump] if jump else at + 1
    return set_to


CAMERA = {
    "ACTION": "add", "SUBSYSTEM": "video4linux", "KERNEL": "video0", "ATTR{index}": "0",
    "ENV{ID_PATH}": "platform-3610000.usb-usb-0:2.1:1.0", "ENV{ID_SERIAL}": "046d_C920_8F2A",
}  # fmt: skip


def test_a_usb_camera_gets_both_names() -> None:
    """The group video may read and write it, and it has a link by USB port and one by serial number."""
    assert _apply(CAMERA, usb=True) == {
        "GROUP": ["video"],
        "MODE": ["0660"],
        "SYMLINK": ["edge-resnet/by-port/platform-3610000.usb-usb-0:2.1:1.0", "edge-resnet/by-serial/046d_C920_8F2A"],
    }


def test_a_camera_without_a_serial_number_has_its_socket() -> None:
    """Cameras without a serial number get no link with an empty name."""
    device = {key: value for key, value in CAMERA.items() if "SERIAL" not in key}
    assert _apply(device, usb=True)["SYMLINK"] == ["edge-resnet/by-port/platform-3610000.usb-usb-0:2.1:1.0"]


def test_the_metadata_device_gets_no_name() -> None:
    """The second device of a UVC camera belongs to the group too, but gets no link, since it gives no frames."""
    assert _apply({**CAMERA, "KERNEL": "video1", "ATTR{index}": "1"}, usb=True) == {"GROUP": ["video"], "MODE": ["0660"]}


@pytest.mark.parametrize(
    ("changed", "usb"),
    [({}, False), ({"SUBSYSTEM": "sound"}, True), ({"KERNEL": "v4l-subdev0"}, True), ({"ACTION": "remove"}, True)],
)
def test_other_devices_are_left_alone(changed: dict[str, str], usb: bool) -> None:
    """CSI cameras, sound, sub-devices and removals are not changed."""
    assert _apply({**CAMERA, **changed}, usb=usb) == {}
