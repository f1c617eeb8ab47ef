"""``edge-resnet inspect --layers`` and ``--layer-info``, on handmade listings."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from layerinfo import PROFILE, as_eleven, document

from edge_resnet.artifact.folder import Artifact

Cli = Callable[..., Any]
GOLDEN = Path(__file__).parent.parent / "golden" / "layers_int8.txt"
FACTS = {"tensorrt": "10.3.0", "gpu": "NVIDIA Orin", "compute_capability": "8.7", "options": {"precision": "int8"}}


def put(folder: Path, name: str, content: Any) -> Path:
    """Write a JSON file into a folder, which is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder / name


@pytest.fixture
def folder(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> Path:
    """A copy of the INT8 artifact with two engines that have a listing and one that has none; ``new`` is the newest."""
    copy = tmp_path / "a"
    shutil.copytree(tiny_artifacts["int8"].folder, copy, ignore=shutil.ignore_patterns("engines"))
    old = put(copy / "engines/old", "layers.json", {"Layers": ["conv1"]})
    os.utime(old, (1, 1))
    put(copy / "engines/new", "layers.json", document())
    put(copy / "engines/new", "engine.json", FACTS)
    put(copy / "engines/cpu", "meta.json", {})
    put(copy / "engines/.part", "layers.json", document())
    return copy


def assert_refused(outcome: Any, *words: str) -> None:
    """One error line and one hint line that hold the words, exit 2, and nothing on stdout."""
    assert outcome.code == 2, outcome.err
    assert [line.split(":")[0] for line in outcome.err.strip().splitlines()] == ["error", "hint"], outcome.err
    assert outcome.out == ""
    assert all(word in outcome.err for word in words), outcome.err


def test_the_table_is_the_golden_one(cli: Cli, tmp_path: Path) -> None:
    """With a profile and the engine's facts beside the listing; a listing of TensorRT 11 prints the same table."""
    for form in (document(), as_eleven(document())):
        put(tmp_path, "layers.json", form)
        put(tmp_path, "profile.json", PROFILE)
        put(tmp_path, "engine.json", FACTS)
        outcome = cli("inspect", "--layer-info", "layers.json")
        assert outcome.code == 0, outcome.err
        assert outcome.out == GOLDEN.read_text(encoding="utf-8")


def test_a_bare_file_needs_no_artifact_and_no_facts(cli: Cli, tmp_path: Path) -> None:
    """Without times the columns are dashes; the causes are printed because the listing contains INT8."""
    put(tmp_path, "info.json", document())
    out = cli("inspect", "--layer-info", "info.json").out.splitlines()
    assert out[0] == "info.json: 12 layers"
    assert all(line.split()[:2] == ["-", "-"] for line in out[2:14])
    assert out[14] == "why is INT8 not faster"
    assert "% of the time" not in "\n".join(out)


def test_the_newest_engine_is_shown(cli: Cli, folder: Path) -> None:
    """Below the rest of inspect's output, with the GPU after the engine's path."""
    outcome = cli("inspect", str(folder), "--layers")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == str(folder)
    assert f"{folder}/engines/new/layers.json: 12 layers, NVIDIA Orin" in lines
    assert "why is INT8 not faster" in lines


def test_an_engine_can_be_named(cli: Cli, folder: Path) -> None:
    """An engine with only names has an almost empty table, and no INT8 in it."""
    lines = cli("inspect", str(folder), "--layers", "--engine", "old").out.splitlines()
    assert lines[-3] == f"{folder}/engines/old/layers.json: 1 layer"
    assert lines[-1].split() == ["-", "-", "-", "-", "-", "conv1"]
    assert_refused(cli("inspect", str(folder), "--layers", "--engine", "cpu"), "no engine cpu", "new, old")


def test_an_int8_engine_with_names_alone_has_little_to_list(cli: Cli, folder: Path) -> None:
    """The facts say that INT8 was requested."""
    put(folder / "engines/old", "engine.json", FACTS)
    out = cli("inspect", str(folder), "--layers", "--engine", "old").out
    assert "only the layers' names are listed" in out


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_float_engine_has_no_causes(cli: Cli, folder: Path, precision: str) -> None:
    """Only the table is printed, and JSON has null."""
    put(folder / "engines/new", "engine.json", {**FACTS, "options": {"precision": precision}})
    assert "why is INT8" not in cli("inspect", str(folder), "--layers").out
    assert json.loads(cli("inspect", str(folder), "--layers", "--json").out)["engine_layers"]["why_int8_is_not_faster"] is None


def test_a_gpu_without_int8_is_named(cli: Cli, folder: Path) -> None:
    """The engine's facts name the GPU, not this machine."""
    put(folder / "engines/new", "engine.json", {**FACTS, "compute_capability": "6.2"})
    assert "compute capability 6.2 has no INT8" in cli("inspect", str(folder), "--layers").out


@pytest.mark.parametrize("facts", ["{", "[]", '{"gpu": 7, "options": 3}'])
def test_damaged_facts_cost_only_the_gpu(cli: Cli, folder: Path, facts: str) -> None:
    """The listing is still printed."""
    (folder / "engines/new/engine.json").write_text(facts, encoding="utf-8")
    outcome = cli("inspect", str(folder), "--layers")
    assert outcome.code == 0, outcome.err
    assert f"{folder}/engines/new/layers.json: 12 layers" in outcome.out.splitlines()


def test_json_holds_every_layer_and_cause(cli: Cli, folder: Path) -> None:
    """The artifact's JSON gets one more key, with what --layer-info prints alone."""
    put(folder / "engines/new", "profile.json", PROFILE)
    whole = json.loads(cli("inspect", str(folder), "--layers", "--json").out)
    shown = whole["engine_layers"]
    assert whole["engines"] == ["cpu", "new", "old"]
    assert shown == json.loads(cli("inspect", "--layer-info", str(folder / "engines/new/layers.json"), "--json").out)
    assert shown["timed_ms"] == pytest.approx(0.2)
    assert shown["tensors"] == ["images", "logits"]
    assert shown["layers"][2]["precision"] == "INT8"
    assert shown["layers"][2]["time"]["milliseconds"] == 0.04
    assert shown["layers"][2]["inputs"][0]["shape"] == [1, 64, 56, 56]
    assert [finding["cause"] for finding in shown["why_int8_is_not_faster"]] == [
        "float_products",
        "moves",
        "adds",
        "float_others",
    ]
    assert "engine_layers" not in json.loads(cli("inspect", str(folder), "--json").out)


def test_without_an_engine_the_hint_is_the_command(cli: Cli, tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """One line and the hint, exit 2."""
    copy = tmp_path / "bare"
    shutil.copytree(tiny_artifacts["int8"].folder, copy, ignore=shutil.ignore_patterns("engines"))
    assert_refused(cli("inspect", str(copy), "--layers"), str(copy), f"edge-resnet compile {copy} --backend tensorrt")


def test_a_damaged_listing_is_one_line(cli: Cli, folder: Path) -> None:
    """A damaged listing and a damaged profile, in an artifact and alone."""
    (folder / "engines/new/profile.json").write_text("[", encoding="utf-8")
    assert_refused(cli("inspect", str(folder), "--layers"), "profile.json is damaged", "--exportProfile")
    (folder / "engines/new/layers.json").write_text("{", encoding="utf-8")
    assert_refused(cli("inspect", str(folder), "--layers"), "layers.json is damaged", "edge-resnet compile")
    assert_refused(cli("inspect", "--layer-info", "none.json"), "no file none.json", "--exportLayerInfo")


@pytest.mark.parametrize("words", [["a"], ["--layers"], ["--ranges"], ["--quantization"], ["--engine", "x"]])
def test_a_file_is_shown_alone(cli: Cli, tmp_path: Path, words: list[str]) -> None:
    """--layer-info takes no other option."""
    put(tmp_path, "info.json", document())
    assert_refused(cli("inspect", "--layer-info", "info.json", *words), "--layer-info", "--layers")


def test_an_engine_without_layers_is_refused(cli: Cli, folder: Path) -> None:
    """--engine needs --layers."""
    assert_refused(cli("inspect", str(folder), "--engine", "new"), "--engine", "add --layers")


def test_many_layers_are_counted_and_not_all_named(cli: Cli, tmp_path: Path) -> None:
    """Six names and the number of the others; JSON has all."""
    names = [f"Reformatting CopyNode for Input Tensor {index} to x" for index in range(9)]
    put(tmp_path, "info.json", {"Layers": names})
    put(tmp_path, "engine.json", FACTS)
    out = cli("inspect", "--layer-info", "info.json").out
    assert out.count(f"\n      {names[0][:30]}") == 6
    assert "      and 3 more\n" in out
    document = json.loads(cli("inspect", "--layer-info", "info.json", "--json").out)
    assert document["why_int8_is_not_faster"][1]["layers"] == names


def test_long_tactics_are_cut_and_long_names_are_not(cli: Cli, tmp_path: Path) -> None:
    """The name is the last column, so that it may have any length."""
    name, tactic = "conv1 + " * 30 + "relu", "sm80_" + "x" * 200
    put(tmp_path, "info.json", {"Layers": [{"Name": name, "LayerType": "CaskConvolution", "TacticName": tactic}]})
    line = cli("inspect", "--layer-info", "info.json").out.splitlines()[2]
    assert line.endswith(f"…  {name}")
    assert tactic[:39] in line
    assert tactic[:40] not in line
