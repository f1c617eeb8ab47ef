"""Checkpoints as training scripts write them: which network is taken, what is said, and what is refused under its name."""

from __future__ import annotations

import argparse
import io
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from edge_resnet.core.errors import EdgeResnetError, WeightsError
from edge_resnet.core.records import ModelSpec
from edge_resnet.network import build_network, load_weights

SPEC = ModelSpec("cifar", 8, "A", classes=10, input_size=32)
State = dict[str, torch.Tensor]


def state(seed: int = 0) -> State:
    """A network whose batch norms have seen images."""
    torch.manual_seed(seed)
    tensors = build_network(SPEC).state_dict()
    return {key: value + 0.5 if key.endswith("running_var") else value for key, value in tensors.items()}


PLAIN, AVERAGE = state(1), state(2)


def under(prefix: str, tensors: State = PLAIN) -> State:
    return {prefix + key: value for key, value in tensors.items()}


def averaged(count: int = 7, tensors: State = AVERAGE) -> State:
    """As torch's AveragedModel and torchvision's references write it."""
    return {"n_averaged": torch.tensor(count), **under("module.", tensors)}


def headless(tensors: State = PLAIN) -> State:
    return {key: value for key, value in tensors.items() if not key.startswith("fc.")}


def head(name: str) -> State:
    return {f"{name}.{kind}": PLAIN[f"fc.{kind}"] for kind in ("weight", "bias")}


def changed(change: Callable[[torch.Tensor], torch.Tensor]) -> State:
    return {key: change(value) if value.is_floating_point() else value for key, value in PLAIN.items()}


def channels_last(value: torch.Tensor) -> torch.Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def load(path: Path | str, spec: ModelSpec = SPEC) -> tuple[State, str]:
    network = build_network(spec)
    origin = load_weights(network, spec, str(path))
    return network.state_dict(), origin


def same(loaded: State, expected: State) -> bool:
    return all(torch.equal(loaded[key], expected[key].float()) for key in loaded if not key.endswith("num_batches_tracked"))


def saved(content: object, folder: Path, name: str = "w.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
LIGHTNING = under("model.")
#: What a training script stores → the network that is taken, and what the one line on stderr holds (none: nothing to say).
READ: dict[str, tuple[Any, State, tuple[str, ...]]] = {
    "torchvision's reference": (
        {"model": PLAIN, "optimizer": OPTIMIZER, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, PLAIN, ()),
    "torchvision's EMA": (
        {"model": PLAIN, "model_ema": averaged()}, AVERAGE, ("model and model_ema are there", "model_ema is taken")),
    "an EMA that averaged nothing": (
        {"model": PLAIN, "model_ema": averaged(0)}, PLAIN, ("model is taken", "model_ema has averaged nothing yet")),
    "an average without its batch norms": (
        {"model": PLAIN, "swa": averaged(tensors={k: torch.ones_like(v) if "running_var" in k else v for k, v in PLAIN.items()})},
        PLAIN, ("model is taken", "swa has batch norms that have seen no image")),
    "AveragedModel alone": (averaged(), AVERAGE, ()),
    "timm's EMA": (
        {"epoch": 4, "arch": "resnet8", "state_dict": PLAIN, "optimizer": OPTIMIZER, "state_dict_ema": AVERAGE, "metric": 91.0},
        AVERAGE, ("state_dict and state_dict_ema are there", "state_dict_ema is taken", "w.pth#state_dict takes the other")),
    "an average under a prefix": (
        {"state_dict": under("model.") | under("ema_model.module.", AVERAGE)}, AVERAGE, ("state_dict.ema_model is taken",)),
    "the same network twice": ({"model": PLAIN, "state_dict": dict(PLAIN)}, PLAIN, ("model is taken",)),
    "another network beside it": (
        {"model": PLAIN, "teacher": build_network(ModelSpec("cifar", 14, "A", classes=10, input_size=32)).state_dict()},
        PLAIN, ("model is taken",)),
    "a momentum by name": ({"net": PLAIN, "momentum": {k: v for k, v in PLAIN.items() if "running" not in k}}, PLAIN, ()),
    "numpy's scalar": ({"state_dict": PLAIN, "best_acc": np.float64(91.7), "seen": np.int32(4)}, PLAIN, ()),
    "Lightning": ({"state_dict": LIGHTNING, "hyper_parameters": {"lr": 0.1}, "callbacks": {}}, PLAIN, ()),
    "Lightning with a loss": (
        {"state_dict": {**LIGHTNING, "criterion.weight": torch.ones(10)}}, PLAIN, ("criterion.weight", "passed over")),
    "Lightning with a metric": (
        {"state_dict": {**LIGHTNING, "train_acc.tp": torch.zeros(10, dtype=torch.int64)}}, PLAIN, ("train_acc.tp",)),
    "kuangliu": ({"net": headless() | head("linear"), "acc": 91.5}, PLAIN, ()),
    "half": (changed(torch.Tensor.half), changed(torch.Tensor.half), ()),
    "bfloat16": (changed(torch.Tensor.bfloat16), changed(torch.Tensor.bfloat16), ()),
    "double": (changed(torch.Tensor.double), PLAIN, ()),
    "channels last": (changed(channels_last), PLAIN, ()),
    "parameters": (OrderedDict(changed(nn.Parameter)), PLAIN, ()),
    "a Sequential as head": (headless() | head("fc.1"), PLAIN, ("fc.1 is taken as the classifier",)),
    "mmpretrain": (
        {"state_dict": under("backbone.", headless()) | head("head.fc")}, PLAIN, ("head.fc is taken as the classifier",)),
    "head.fc": (headless() | head("head.fc"), PLAIN, ()),
    **{f"prefix {prefix}": (under(prefix), PLAIN, ()) for prefix in
       ("resnet.", "encoder.", "module.model.", "_orig_mod.module.", "classifier.", "0.", "a.b.c.d.")},
}  # fmt: skip


@pytest.mark.parametrize("habit", READ)
def test_what_a_training_script_stores_is_read(habit: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The better network of a checkpoint is taken, and one line says so where there was a choice; else nothing is said."""
    content, expected, words = READ[habit]
    loaded, _ = load(saved(content, tmp_path))
    assert same(loaded, expected)
    assert len(caplog.messages) == bool(words)
    assert all(word in caplog.text for word in words), caplog.text


def page(folder: Path) -> Path:
    (folder / "w.pth").write_text("\n <!DOCTYPE html><html><head><title>Virus scan warning</title></head></html>")
    return folder / "w.pth"


def pointer(folder: Path) -> Path:
    (folder / "w.pth").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 46830571\n")
    return folder / "w.pth"


def cut(folder: Path) -> Path:
    path = saved(PLAIN, folder)
    path.write_bytes(path.read_bytes()[:20_000])
    return path


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "w.pth", "w", method) as made:
            for name, content in members.items():
                made.writestr(name, content)
        return folder / "w.pth"

    return write


def holding(content: object) -> Callable[[Path], Path]:
    return lambda folder: saved(content, folder)


def bytes_(content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "w.pth").write_bytes(content)
        return folder / "w.pth"

    return write


NEGATIVE = {k: v - 9 if k == "layer1.0.bn1.running_var" else v for k, v in PLAIN.items()}
IMAGENET_STEM = {"conv1.weight": torch.zeros(64, 3, 5, 5), "layer4.0.conv1.weight": torch.zeros(1, 1, 1, 1)}
#: What is refused → what the error and its hint hold.
REFUSED: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "linear beside fc": (holding(PLAIN | head("linear")), ("two classifiers, fc and linear",)),
    "shortcut beside downsample": (
        holding(PLAIN | {f"layer2.0.{n}.0.weight": torch.zeros(1) for n in ("shortcut", "downsample")}),
        ("shortcut and downsample",)),
    "a layer in front": (
        holding({"0.mean": torch.zeros(3), **under("1.")}), ("0.mean stand beside the network 1", "w.pth#1")),
    "a head that is a network": (
        holding(headless() | {"fc.0.weight": torch.zeros(8, 64), "fc.2.weight": torch.zeros(10, 8)}),
        ("fc.0.weight is unexpected",)),
    "student and teacher": (
        holding({"state_dict": under("student.") | under("teacher.", AVERAGE)}),
        ("state_dict.student, state_dict.teacher", "w.pth#")),
    "negative variance": (holding(NEGATIVE), ("layer1.0.bn1.running_var", "negative variance")),
    "two channels": (holding(PLAIN | {"conv1.weight": torch.zeros(16, 2, 3, 3)}), ("2 channels",)),
    "another stem": (holding(PLAIN | IMAGENET_STEM), ("another stem",)),
    "wide": (
        holding(PLAIN | {"layer1.0.conv3.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(128, 64, 1, 1)}),
        ("other depths or widths",)),
    "a transformer": (holding({"blocks.0.attn.qkv.weight": torch.zeros(1)}), ("Vision Transformer",)),
    "nothing": (holding({}), ("no tensors",)),
    "a list": (holding([1, 2]), ("contains a list",)),
    "an empty file": (bytes_(b""), ("is empty",)),
    "an LFS pointer": (pointer, ("Git LFS pointer", "git lfs pull")),
    "a web page": (page, ("web page", "save the file itself")),
    "a truncated file": (cut, ("cut short", "copy the file again")),
    "text": (bytes_(b"\x1b[31mnot weights".replace(b"\x1b[31m", b"")), ("text that begins with 'not weights'",)),
    "Keras": (bytes_(b"\x89HDF\r\n\x1a\n" + bytes(600)), ("HDF5",)),
    "a gzip": (bytes_(b"\x1f\x8b" + bytes(600)), ("gzip", "unpack")),
    "another zip": (archive({"arr.npy": b"x"}), ("zip archive that torch.save did not write",)),
    "a zip bomb": (archive({"w/data.pkl": bytes(10**6), "w/data/0": bytes(10**6)}, zipfile.ZIP_DEFLATED), ("would unpack to",)),
    "a header beyond the file": (bytes_(struct.pack("<Q", 2**40) + b'{"a":1}'), ("its header would have",)),
    "keys for a terminal": (holding(PLAIN | {"\x1b[2Jlayer\n1": torch.zeros(1)}), ("\\x1b[2Jlayer\\n1 is unexpected",)),
    "an invented depth": (
        holding(PLAIN | {f"layer3.{n}.conv1.weight": torch.zeros(1) for n in range(1, 60_000, 600)}), ("is unexpected",)),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_weights_is_called_what_it_is(kind: str, tmp_path: Path) -> None:
    """The error names the kind of file or the tensor, in one line, and the network keeps its own weights."""
    make, words = REFUSED[kind]
    network = build_network(SPEC)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(network, SPEC, str(make(tmp_path)))
    error = caught.value
    assert all(word in f"{error.message} {error.hint}" for word in words), (error.message, error.hint)
    assert error.hint
    assert "\n" not in error.message
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("kind", ["module", "program"])
def test_the_hint_for_a_pickled_module_or_a_program_works(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who trusts the file and runs the command of the hint gets weights that load."""
    spec = replace(SPEC, shortcut="B")  # a trace of option A contains a constant as well
    network = build_network(spec).eval()
    path = tmp_path / "w.pt"
    if kind == "module":
        torch.save(network, path)
    else:
        torch.jit.trace(network, torch.zeros(1, 3, 32, 32)).save(str(path))
    with pytest.raises(WeightsError, match="pickled module" if kind == "module" else "TorchScript") as caught:
        load(path, spec)
    command = re.search(r'python -c "(.*)"$', caught.value.hint)
    assert command
    monkeypatch.chdir(tmp_path)
    exec(command[1])
    assert same(load("weights.pth", spec)[0], network.state_dict())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("state_dict", PLAIN), ("state_dict_ema", AVERAGE), ("ema", AVERAGE)],
)
def test_a_name_after_the_file_chooses(name: str, expected: State, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """FILE#NAME takes that network, says nothing, and the id for the manifest holds its name."""
    path = saved({"state_dict": PLAIN, "state_dict_ema": AVERAGE}, tmp_path)
    loaded, origin = load(f"{path}#{name}")
    assert same(loaded, expected)
    assert re.fullmatch(rf"sha256:[0-9a-f]{{64}}#state_dict{'_ema' if expected is AVERAGE else ''}", origin)
    assert caplog.text == ""


def test_a_name_takes_the_network_without_what_stands_beside_it(tmp_path: Path) -> None:
    """What was refused as ambiguous loads once it is asked for by its name."""
    assert same(load(f"{saved({'0.mean': torch.zeros(3), **under('1.')}, tmp_path)}#1")[0], PLAIN)


def test_a_name_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    """A mistyped name is never replaced by a guess."""
    path = saved({"state_dict": PLAIN, "state_dict_ema": AVERAGE}, tmp_path)
    for name in ("model", "state"):
        with pytest.raises(WeightsError, match="state_dict, state_dict_ema"):
            load(f"{path}#{name}")
    with pytest.raises(WeightsError, match="does not exist"):
        load(f"{path}#")


def test_a_file_whose_name_contains_the_sign_is_that_file(tmp_path: Path) -> None:
    """The file that exists takes precedence over a name within another."""
    content = {"state_dict": PLAIN, "state_dict_ema": AVERAGE}
    saved(content, tmp_path, "w.pth")
    saved(PLAIN, tmp_path, "w.pth#state_dict_ema")
    (tmp_path / "run#3").mkdir()
    saved(content, tmp_path / "run#3")
    assert same(load(tmp_path / "w.pth#state_dict_ema")[0], PLAIN)
    assert same(load(tmp_path / "run#3" / "w.pth")[0], AVERAGE)
    assert same(load(tmp_path / "run#3" / "w.pth#state_dict")[0], PLAIN)
    with pytest.raises(WeightsError, match="does not exist"):
        load(tmp_path / "run#3" / "v.pth")


def test_the_content_decides_on_the_format(tmp_path: Path) -> None:
    """safetensors called .pth, and a pickle called .safetensors, load all the same."""
    save_file(PLAIN, tmp_path / "a.pth")
    torch.save(PLAIN, tmp_path / "b.safetensors")
    torch.save(PLAIN, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for name in ("a.pth", "b.safetensors", "legacy.pth"):
        assert same(load(tmp_path / name)[0], PLAIN)


def test_a_checkpoint_that_contains_itself_ends(tmp_path: Path) -> None:
    """Cycles, and lists that refer to one another many times, are visited once."""
    bomb: list[object] = []
    for _ in range(60):
        bomb = [bomb, bomb]
    content: dict[str, object] = {"state_dict": PLAIN, "bomb": bomb}
    content["again"] = content
    assert same(load(saved(content, tmp_path))[0], PLAIN)


BLOBS = [io.BytesIO() for _ in range(2)]
torch.save({"state_dict": PLAIN}, BLOBS[0])
torch.save(PLAIN, BLOBS[1], _use_new_zipfile_serialization=False)
SEEDS = [blob.getvalue() for blob in BLOBS] + [pickle.dumps({"a": 1}, protocol=2)]


@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_a_damaged_file_gives_our_error_or_a_network(
    seed: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever bytes of a checkpoint change, nothing but our error comes out."""
    content = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, min(len(content), 4000) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "w.pth"
    path.write_bytes(content)
    with suppress(EdgeResnetError):
        load(path)


@pytest.mark.parametrize("operations", [b"N", b"]"], ids=["flat", "nested"])
@pytest.mark.parametrize("legacy", [False, True])
def test_an_endless_pickle_ends(operations: bytes, legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is parsed before the tensors has a budget, in both of torch's formats."""
    monkeypatch.setattr("edge_resnet.network.weightfile._MAX_HEADER", 1000)
    monkeypatch.setattr("edge_resnet.network.weightfile._MAX_READS", 1000)
    content = b"\x80\x02" + operations * 5000 + b"."
    if legacy:
        buffer = io.BytesIO()
        torch.save({}, buffer, _use_new_zipfile_serialization=False)
        at = buffer.getvalue().index(pickle.dumps({}, 2)[:3], 60)
        path = bytes_(buffer.getvalue()[:at] + content)(tmp_path)
    else:
        path = archive({"w/data.pkl": content})(tmp_path)
    with pytest.raises(WeightsError, match="operations" if legacy else "would unpack"):
        load(path)


@pytest.mark.parametrize("count", [0, 7])
def test_the_counter_of_an_average_beside_another_network(tmp_path: Path, count: int) -> None:
    """In a flat file, too, an average that has averaged nothing is not taken."""
    path = tmp_path / "w.pth"
    torch.save(under("model.") | {f"ema_model.{key}": value for key, value in averaged(count).items()}, path)
    network = build_network(SPEC)
    load_weights(network, SPEC, str(path))
    key = "layer1.0.conv1.weight"
    assert torch.equal(network.state_dict()[key], (AVERAGE if count else PLAIN)[key])


def test_a_name_for_a_file_of_one_network(tmp_path: Path) -> None:
    """The hint gives the file alone: there is no name to choose."""
    path = tmp_path / "w.pth"
    torch.save(PLAIN, path)
    with pytest.raises(WeightsError, match="ema is not there") as caught:
        load_weights(build_network(SPEC), SPEC, f"{path}#ema")
    assert "NAME" not in str(caught.value.hint)
    assert str(path) in str(caught.value.hint)
