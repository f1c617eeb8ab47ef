"""The PTX in the package: bound to its source, taken by NVIDIA's real compilers for every GPU, and refused if it is damaged."""

from __future__ import annotations

import locale
import re
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from scripts import load_script
from standins import ptx as translated

from edge_resnet.core.errors import BackendError
from edge_resnet.runtime.tensorrt.kernels import PTX_CAPABILITY, PTX_CUDA, ptx_with_digests, shipped_ptx

REPO = Path(__file__).resolve().parents[3]
FOLDER = REPO / "edge_resnet/runtime/tensorrt"
SOURCE, PTX = FOLDER / "resize.cu", FOLDER / "resize.ptx"


script = load_script(REPO / "benchmarks" / "kernels.py")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package's data, which a test may damage."""
    for file in (SOURCE, PTX):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    return tmp_path


def nvrtc(version: str) -> Any:
    """That NVRTC, or the test is skipped."""
    found = {nvrtc.version: nvrtc for nvrtc in script.nvrtcs()}
    chosen = next((found[name] for name in found if name == version or name.startswith(f"{version}.")), None)
    if chosen is None:
        pytest.skip(f"no wheel of NVRTC {version} here")
    return chosen


def ptxas(place: str) -> Path:
    """ptxas of the wheel or of the PATH, or the test is skipped."""
    found = [path for path in script.assemblers() if ("site-packages" in str(path)) == (place == "wheel")]
    if not found:
        pytest.skip(f"no ptxas: not in a {place}" if place == "wheel" else "no ptxas on the PATH")
    return found[0]


def test_the_ptx_is_of_the_source_in_the_package() -> None:
    """Its header holds the digest of the source as it is now: whoever changes resize.cu runs `make ptx`."""
    assert shipped_ptx() == PTX.read_bytes() + b"\0", "resize.cu was changed, or resize.ptx by hand: run make ptx"
    assert b"\0" not in PTX.read_bytes()


def test_nvrtc_makes_the_same_ptx_again() -> None:
    """Byte for byte, by the NVRTC of CUDA 11.8: nothing of the machine that made it is in it."""
    nvrtc(PTX_CUDA)
    assert script.made_ptx() == PTX.read_bytes()


def test_old_drivers_and_gpus_may_load_it() -> None:
    """Its instruction set is that of CUDA 11.8, below that of JetPack 6 (8.2), and its target what the program says."""
    text = PTX.read_text(encoding="ascii")
    assert translated.isa_of(text) == (7, 8)
    assert re.findall(r"^\.target (\w+)$", text, re.MULTILINE) == [f"sm_{PTX_CAPABILITY.replace('.', '')}"]
    assert f"release {PTX_CUDA}," in text
    assert re.findall(r"\.visible \.entry (\w+)", text) == ["resize_rows", "resize_columns"]


@pytest.mark.parametrize("version", ["11.8", "12.9", "13"])
def test_nvrtc_compiles_the_source_for_every_gpu(version: str) -> None:
    """Every virtual architecture from 7.2 on that this NVRTC knows gives both kernels, without a warning but of old targets."""
    chosen = nvrtc(version)
    targets = [target for target in chosen.targets if target >= 72]
    assert {75, 80, 86, 87, 89, 90} <= set(targets)
    for target in targets:
        text, log = chosen.compile(SOURCE.read_bytes(), target)
        assert text.count(b".visible .entry resize_") == 2
        assert [line for line in log.splitlines() if "are deprecated and may be removed" not in line] == []


def test_a_failed_compilation_is_an_error() -> None:
    """The script stops with the compiler's words, so that no PTX is written, and this process still decodes UTF-8."""
    if not script.nvrtcs():
        pytest.skip("no wheel of NVRTC here")
    before = locale.nl_langinfo(locale.CODESET)
    for compiler in script.nvrtcs():
        with pytest.raises(RuntimeError, match=r"resize\.cu\(1\): error"):
            compiler.compile(b"no C;", 75)
    assert locale.nl_langinfo(locale.CODESET) == before


@pytest.mark.parametrize("place", ["wheel", "PATH"])
def test_ptxas_assembles_it_for_every_gpu(place: str) -> None:
    """From Turing to Blackwell, Orin among them: no spills, at most 64 registers, and 8 KiB of shared memory."""
    assembler, ptx = ptxas(place), PTX.read_bytes()
    found = {target: script.assemble(assembler, ptx, target) for target in script.ARCHITECTURES}
    known = {target: usages for target, usages in found.items() if usages is not None}
    assert {75, 80, 86, 87, 89, 90, 100, 120, 121} <= set(known)
    for target, usages in known.items():
        assert {usage.kernel for usage in usages} == set(script.KERNELS), target
        assert [usage.spills for usage in usages] == [0, 0], target
        assert max(usage.registers for usage in usages) <= 64, target
        assert max(usage.shared for usage in usages) == 8192, target


def test_ptxas_refuses_what_a_driver_would_refuse() -> None:
    """The script does not take a failure for a result: half of the PTX, and a target above the architecture."""
    assembler, ptx = ptxas("wheel"), PTX.read_bytes()
    for wrong in (ptx[: len(ptx) // 2], ptx.replace(b".target sm_52", b".target sm_90")):
        with pytest.raises(RuntimeError, match="sm_75"):
            script.assemble(assembler, wrong, 75)


@pytest.mark.parametrize("what", ["source changed", "header cut", "body changed", "cut short", "empty", "not text"])
def test_damaged_ptx_never_reaches_the_driver(package: Path, what: str) -> None:
    """Whatever differs from what was made, in the source or in the PTX, is an error of one line with a remedy."""
    ptx = PTX.read_bytes()
    if what == "source changed":
        (package / "resize.cu").write_bytes(SOURCE.read_bytes() + b"\n")
    changed = {
        "header cut": ptx.split(b"\n", 1)[1],
        "body changed": ptx.replace(b", 22;", b", 21;"),
        "cut short": ptx[:-20],
        "empty": b"",
        "not text": bytes(range(256)) * 8,
    }
    (package / "resize.ptx").write_bytes(changed.get(what, ptx))
    with pytest.raises(BackendError, match=r"resize\.ptx of this package is damaged, or not made from its resize\.cu$") as caught:
        shipped_ptx()
    assert caught.value.hint == "pip install --force-reinstall --no-deps edge-resnet"


@pytest.mark.parametrize("name", ["resize.ptx", "resize.cu"])
def test_missing_ptx_is_an_error_of_one_line(package: Path, name: str) -> None:
    """An installation that lacks one of the two files says so, with the same remedy."""
    (package / name).unlink()
    with pytest.raises(BackendError, match=f"^{name} of this package cannot be read: No such file") as caught:
        shipped_ptx()
    assert caught.value.hint


def test_the_header_binds_both_ways() -> None:
    """Another source or other PTX gives another header, and the header is a comment to PTX."""
    headers = {ptx_with_digests(source, ptx)[:-1] for source in (b"a", b"b") for ptx in (b"c", b"d")}
    assert len(headers) == 4
    assert all(line.startswith(b"// ") for line in next(iter(headers)).splitlines())


def test_unknown_instructions_are_not_guessed() -> None:
    """The stand-in that runs PTX refuses what it does not know."""
    with pytest.raises(NotImplementedError, match=r"popc\.b32"):
        translated.to_c(".version 7.8\n.visible .entry k(\n)\n{\n\tpopc.b32 \t%r1, %r2;\n\tret;\n}\n")
