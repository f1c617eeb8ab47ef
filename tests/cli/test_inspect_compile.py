"""``edge-resnet inspect --quantization``, and the files that ``edge-resnet compile`` writes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from refusals import assert_refused
from tiny import KEPT, build_kept

from edge_resnet.artifact.folder import Artifact
from edge_resnet.compiler.derive import corrected_graph
from edge_resnet.compiler.inspection import quantization_of

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def kept_int8(tmp_path_factory: pytest.TempPathFactory, smooth_images: Path) -> Artifact:
    """INT8 for batches up to 4, with corrections, an exact input and one node in high precision. Do not modify."""
    return build_kept(tmp_path_factory.mktemp("kept") / "a", smooth_images)


def test_inspect_prints_the_quantization(cli: Cli, kept_int8: Artifact) -> None:
    """The lines of the listing follow what inspect prints without the option; JSON has them as ``quantization``."""
    found = quantization_of(kept_int8)
    plain = cli("inspect", str(kept_int8.folder))
    outcome = cli("inspect", str(kept_int8.folder), "--quantization")
    assert outcome.code == 0, outcome.err
    assert outcome.out == plain.out + "\n".join(found.lines()) + "\n"
    document = json.loads(cli("inspect", str(kept_int8.folder), "--quantization", "--json").out)
    assert document["quantization"] == json.loads(json.dumps(found.as_json()))


def test_inspect_says_nothing_of_quantization_unasked(cli: Cli, kept_int8: Artifact) -> None:
    """Neither text nor JSON changes without the option."""
    assert "conv input" not in cli("inspect", str(kept_int8.folder)).out
    assert "quantization" not in json.loads(cli("inspect", str(kept_int8.folder), "--json").out)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_float_artifact_has_no_listing(cli: Cli, tiny_artifacts: dict[str, Artifact], precision: str) -> None:
    """Nothing in it is quantized: exit 2, and the hint says what to build."""
    assert_refused(cli("inspect", str(tiny_artifacts[precision].folder), "--quantization"), precision, "--int8")


@pytest.mark.parametrize("words", [("inspect", "--quantization"), ("compile", "--write-onnx", "x.onnx", "--dialect", "weak")])
def test_a_device_without_onnx_gets_one_line(tiny_artifacts: dict[str, Artifact], tmp_path: Path, words: tuple[str, ...]) -> None:
    """If onnx is not installed, the error names the extra that installs it, exit 1; inspect alone still works."""
    hide = (
        "import sys\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'onnx': raise ModuleNotFoundError(\"No module named 'onnx'\", name='onnx')\n"
        "sys.meta_path.insert(0, Gone())\n"
        "from edge_resnet.cli import main\n"
        "main()"
    )
    folder = str(tiny_artifacts["int8"].folder)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", hide, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    result = run(words[0], folder, *words[1:])
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["error: this command needs onnx", "hint: pip install 'edge-resnet[compile]'"]
    assert run("inspect", folder).returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("precision", "dialect", "flags"),
    [
        ("fp32", "weak", []), ("fp16", "weak", ["--fp16"]), ("int8", "weak", ["--int8", "--fp16"]),
        ("fp16", "strong", ["--stronglyTyped"]), ("int8", "strong", ["--stronglyTyped"]),
    ],
)  # fmt: skip
def test_compile_writes_a_graph_and_says_how_to_read_it(
    cli: Cli, tiny_artifacts: dict[str, Artifact], precision: str, dialect: str, flags: list[str]
) -> None:
    """One file, and one line with the flags of that typing and precision; no engine is derived."""
    outcome = cli("compile", str(tiny_artifacts[precision].folder), "--write-onnx", "out/graph.onnx", "--dialect", dialect)
    assert outcome.code == 0, outcome.err
    file, command = outcome.out.strip().removeprefix("wrote ").split(": ")
    assert shlex.split(command) == ["trtexec", "--onnx=out/graph.onnx", *flags, "--shapes=images:1x32x32x3"]
    onnx.checker.check_model(onnx.load(file), full_check=True)
    assert [path.name for path in Path("out").iterdir()] == ["graph.onnx"]


def test_compile_writes_the_cache_and_its_graph(cli: Cli, kept_int8: Artifact) -> None:
    """The line names both files, what is kept in FP16, the DLA, and the optimum batch; spaces are quoted."""
    outcome = cli("compile", str(kept_int8.folder), "--write-trt-cache", "my int8.cache", "--tensorrt-version", "8.6.1")
    assert outcome.code == 0, outcome.err
    words = shlex.split(outcome.out.strip().removeprefix("wrote my int8.cache: "))
    assert words[:5] == ["trtexec", "--onnx=my int8.onnx", "--int8", "--fp16", "--calib=my int8.cache"]
    assert words[5:7] == ["--precisionConstraints=obey", f"--layerPrecisions={KEPT}:fp16"]
    assert words[7:] == ["--useDLACore=0", "--allowGPUFallback", "--shapes=images:2x32x32x3"]
    assert Path("my int8.cache").read_text(encoding="ascii").startswith("TRT-8601-EntropyCalibration2\nshift: 3f800000\n")
    assert onnx.load("my int8.onnx") == corrected_graph(kept_int8)


def test_a_recipe_that_keeps_nothing_needs_no_constraints(cli: Cli, tiny_artifacts: dict[str, Artifact]) -> None:
    """The line has no layer precisions."""
    outcome = cli("compile", str(tiny_artifacts["int8"].folder), "--write-trt-cache", "c", "--tensorrt-version", "10.3.0")
    assert "--layerPrecisions" not in outcome.out
    assert "--calib=c " in outcome.out


def test_compiles_json_names_files_and_engines(cli: Cli, tiny_artifacts: dict[str, Artifact]) -> None:
    """``written`` maps each file to its command; with files, an engine is derived only for the simulation."""
    folder = str(tiny_artifacts["int8"].folder)
    files = ("--write-onnx", "s.onnx", "--dialect", "strong", "--write-trt-cache", "d.cache", "--tensorrt-version", "10.3.0")
    document = json.loads(cli("compile", folder, *files, "--json").out)
    assert list(document["written"]) == ["s.onnx", "d.cache"]
    assert all(command.startswith("trtexec ") for command in document["written"].values())
    assert document["engines"] == []
    document = json.loads(cli("compile", folder, *files, "--force", "--simulate-int8", "--json").out)
    assert len(document["engines"]) == 1
    assert "tensorrt" in document["engines"][0]
    assert json.loads(cli("compile", folder, "--json").out)["written"] == {}


def test_compile_replaces_nothing_without_force(cli: Cli, tiny_artifacts: dict[str, Artifact]) -> None:
    """A second run is refused, a third with --force is not."""
    words = ("compile", str(tiny_artifacts["int8"].folder), "--write-onnx", "x.onnx", "--dialect", "weak")
    assert cli(*words).code == 0
    before = Path("x.onnx").stat().st_mtime_ns
    assert_refused(cli(*words), "x.onnx exists already", "--force")
    assert Path("x.onnx").stat().st_mtime_ns == before
    assert cli(*words, "--force").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--write-onnx", "x.onnx"), ("--dialect", "8.6 to 10.11")),
        (("--dialect", "weak"), ("--write-onnx",)),
        (("--write-onnx", "x.onnx", "--dialect", "stiff"), ("stiff", "--help")),
        (("--write-trt-cache", "x.cache"), ("--tensorrt-version", "8.6.1")),
        (("--tensorrt-version", "8.6.1"), ("--write-trt-cache",)),
        (("--write-trt-cache", "x.cache", "--tensorrt-version", "11.4.1"), ("11.4.1", "--write-onnx")),
        (("--write-trt-cache", "x.cache", "--tensorrt-version", "8.6"), ("8.6", "8.6.1")),
        (("--write-trt-cache", "x.onnx", "--tensorrt-version", "8.6.1"), ("x.onnx", ".cache")),
        (
            ("--write-onnx", "x.onnx", "--dialect", "weak", "--write-trt-cache", "x.cache", "--tensorrt-version", "8.6.1"),
            ("x.onnx", "two different names"),
        ),
    ],
)
def test_bad_options_are_refused(
    cli: Cli, tiny_artifacts: dict[str, Artifact], words: tuple[str, ...], said: tuple[str, ...]
) -> None:
    """Each mistake is one line and one hint, exit 2, and no file appears."""
    assert_refused(cli("compile", str(tiny_artifacts["int8"].folder), *words), *said)
    assert list(Path.cwd().iterdir()) == []


def test_fp32_has_no_strongly_typed_graph(cli: Cli, tiny_artifacts: dict[str, Artifact]) -> None:
    """The strongly typed graph of FP32 is the graph itself."""
    words = ("compile", str(tiny_artifacts["fp32"].folder), "--write-onnx", "x.onnx", "--dialect", "strong")
    assert_refused(cli(*words), "FP32", "--dialect weak")


def test_a_table_of_another_graph_is_refused(cli: Cli, tiny_int8: Path) -> None:
    """Even if the hashes in the manifest match, the table's own digest does not: nothing is printed or written."""
    import hashlib

    table = json.loads((tiny_int8 / "calibration.json").read_text(encoding="utf-8"))
    text = json.dumps({**table, "model_digest": "0" * 64})
    (tiny_int8 / "calibration.json").write_text(text, encoding="utf-8")
    manifest = json.loads((tiny_int8 / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["calibration.json"] = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "size": len(text)}
    (tiny_int8 / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for words in (("inspect",), ("compile", "--write-onnx", "x.onnx", "--dialect", "weak")):
        option = ("--quantization",) if words == ("inspect",) else words[1:]
        assert_refused(cli(words[0], str(tiny_int8), *option), "another graph", "build the artifact again")
    assert not Path("x.onnx").exists()


def test_the_written_graphs_compute_the_same_classes(cli: Cli, kept_int8: Artifact) -> None:
    """The weakly and the strongly typed file compute the same classes on smooth images."""
    from exported import image_batch, logits

    for dialect in ("weak", "strong"):
        assert cli("compile", str(kept_int8.folder), "--write-onnx", f"{dialect}.onnx", "--dialect", dialect).code == 0
    images = image_batch(32, 32, seed=2)
    weak, strong = (logits(Path(f"{dialect}.onnx"), images) for dialect in ("weak", "strong"))
    assert np.mean(weak.argmax(1) == strong.argmax(1)) >= 0.95
