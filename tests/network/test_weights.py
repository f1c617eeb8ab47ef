"""Weights from files of every format and layout, and files that do not fit or are not safe."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from edge_resnet.core.errors import WeightsError
from edge_resnet.core.records import ModelSpec
from edge_resnet.network import build_network, load_weights
from edge_resnet.network.weights import default_address

SPEC = ModelSpec("cifar", 8, "B", classes=10, input_size=32)
State = dict[str, torch.Tensor]


def _state(spec: ModelSpec = SPEC, seed: int = 0) -> State:
    torch.manual_seed(seed)
    return build_network(spec).state_dict()


def _load(path: Path, spec: ModelSpec = SPEC) -> State:
    torch.manual_seed(99)
    network = build_network(spec)
    load_weights(network, spec, str(path))
    return network.state_dict()


def _equal(left: State, right: State) -> bool:
    return all(torch.equal(left[key], right[key]) for key in right if not key.endswith("num_batches_tracked"))


def _assert_refused(path: Path, spec: ModelSpec = SPEC, match: str = "weights") -> WeightsError:
    """Loading raises a one-line error with a hint and exit code 2, and the network keeps its weights."""
    torch.manual_seed(5)
    network = build_network(spec)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=match) as caught:
        load_weights(network, spec, str(path))
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2
    assert _equal(network.state_dict(), before)
    return caught.value


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".safetensors"])
def test_every_format(tmp_path: Path, suffix: str) -> None:
    """Each format gives the same tensors, and the id is the file's hash."""
    path = tmp_path / f"w{suffix}"
    save_file(_state(), path) if suffix == ".safetensors" else torch.save(_state(), path)
    assert _equal(_load(path), _state())
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", load_weights(build_network(SPEC), SPEC, str(path)))


@settings(max_examples=25)
@given(
    prefixes=st.lists(st.sampled_from(["module.", "_orig_mod.", "model.", "net.", "backbone."]), max_size=2, unique=True),
    linear=st.booleans(),
    shortcut=st.booleans(),
    wrapper=st.sampled_from([None, "state_dict", "model", "net", "model_state_dict"]),
    counters=st.booleans(),
)
def test_any_repositorys_keys(
    tmp_path_factory: pytest.TempPathFactory,
    prefixes: list[str],
    linear: bool,
    shortcut: bool,
    wrapper: str | None,
    counters: bool,
) -> None:
    """Prefixes of wrappers, linear for fc, shortcut for downsample, a nested dict: the tensors are the same."""
    state = {}
    for key, value in _state().items():
        if not counters and key.endswith("num_batches_tracked"):
            continue
        name = re.sub(r"^fc\.", "linear.", key) if linear else key
        name = name.replace(".downsample.", ".shortcut.") if shortcut else name
        state["".join(prefixes) + name] = value
    path = tmp_path_factory.mktemp("keys") / "w.pth"
    torch.save({wrapper: state, "epoch": 3, "best_prec1": 91.7} if wrapper else state, path)
    assert _equal(_load(path), _state())


def test_half_precision_is_widened(tmp_path: Path) -> None:
    """float16 values become float32 weights of the same value."""
    half = {key: value.half() if value.is_floating_point() else value for key, value in _state().items()}
    save_file(half, tmp_path / "w.safetensors")
    loaded = _load(tmp_path / "w.safetensors")
    assert loaded["conv1.weight"].dtype == torch.float32
    assert torch.equal(loaded["conv1.weight"], half["conv1.weight"].float())


def test_random_leaves_the_network_as_it_is() -> None:
    """`random` changes nothing and is the id."""
    torch.manual_seed(1)
    network = build_network(SPEC)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert load_weights(network, SPEC, "random") == "random"
    assert _equal(network.state_dict(), before)


def test_the_first_of_each_fault_is_named(tmp_path: Path) -> None:
    """Missing and unexpected keys, and keys of another shape with both shapes."""
    state = dict(_state())
    del state["bn1.weight"]
    state["extra.weight"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(16, 2, 3, 3)
    save_file(state, tmp_path / "w.safetensors")
    error = _assert_refused(tmp_path / "w.safetensors")
    message = error.message
    assert error.classes is None
    assert "bn1.weight is missing" in message
    assert "extra.weight is unexpected" in message
    assert "conv1.weight has shape (16, 2, 3, 3), not (16, 3, 3, 3)" in message


@pytest.mark.parametrize(
    ("other", "options"),
    [
        (replace(SPEC, depth=14), "--depth 14"),
        (replace(SPEC, classes=7), "--classes 7"),
        (replace(SPEC, shortcut="A"), "--shortcut A"),
        (replace(SPEC, shortcut="C"), "--shortcut C"),
        (ModelSpec(depth=18, classes=4), "--family imagenet --depth 18 --shortcut B --classes 4"),
        (ModelSpec(depth=50, classes=4), "--depth 50"),
    ],
    ids=lambda value: value.name if isinstance(value, ModelSpec) else value,
)
def test_the_hint_says_which_network_would_fit(tmp_path: Path, other: ModelSpec, options: str) -> None:
    """A file of another network is recognised by its keys; its number of classes is a field of the error."""
    save_file(_state(other), tmp_path / "w.safetensors")
    error = _assert_refused(tmp_path / "w.safetensors")
    assert options in error.hint
    assert error.classes == other.classes


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    """The weights of a diverged training are refused."""
    state = dict(_state())
    state["fc.weight"] = state["fc.weight"].clone().fill_(float("nan"))
    save_file(state, tmp_path / "w.safetensors")
    _assert_refused(tmp_path / "w.safetensors", match="fc.weight contains a value that is not finite")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, suffix: str, share: float) -> None:
    """A truncated file is refused, wherever it ends."""
    path = tmp_path / f"w{suffix}"
    save_file(_state(), path) if suffix == ".safetensors" else torch.save(_state(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    _assert_refused(path)


class _Runs:
    """Would create a file if anything called it."""

    target: Path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"state_dict": x}, lambda x: [x]])
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_pickled_code_is_not_run(
    tmp_path: Path, wrap: Callable[[object], object], save: Callable[[object, Path], object]
) -> None:
    """A pickle with code in it, bare or inside a checkpoint, is refused and its code never runs."""
    evil = _Runs()
    evil.target = tmp_path / "pwned"
    save(wrap(evil), tmp_path / "w.pth")
    _assert_refused(tmp_path / "w.pth", match="contains code or is not a weights file")
    assert not (tmp_path / "pwned").exists()


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        _folder,
        lambda path: path.write_text("not weights"),
        lambda path: torch.save([torch.zeros(3)], path),
        lambda path: torch.save({"epoch": 3}, path),
        lambda path: torch.save(torch.zeros(3), path),
        lambda _: None,
    ],
    ids=["folder", "text", "list", "no tensors", "a tensor", "missing"],
)
def test_what_is_no_state_dict(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """Folders, text, other objects and missing files are refused."""
    spoil(tmp_path / "w.pth")
    _assert_refused(tmp_path / "w.pth")


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_default_weights_have_an_address(depth: int) -> None:
    """torchvision names a URL with the first digits of the hash for each depth."""
    url, prefix = default_address(ModelSpec(depth=depth))
    assert f"resnet{depth}-" in url
    assert re.fullmatch(r"[0-9a-f]{8,}", prefix)


@pytest.mark.parametrize(
    "spec", [SPEC, ModelSpec(depth=50, shortcut="C"), ModelSpec(depth=18, plain=True), ModelSpec(depth=50, classes=10)], ids=str
)
def test_other_networks_have_no_default_weights(spec: ModelSpec) -> None:
    """Only torchvision's own networks have torchvision's weights."""
    with pytest.raises(WeightsError, match="no default weights") as caught:
        default_address(spec)
    assert "--weights PATH" in caught.value.hint


@pytest.mark.parametrize(
    ("argument", "identity"), [("default", "IMAGENET1K_V1"), ("v1", "IMAGENET1K_V1"), ("v2", "IMAGENET1K_V2")]
)
def test_default_weights_are_downloaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, identity: str
) -> None:
    """A file in torch.hub's checkpoints with torchvision's name is used without a network."""
    spec = ModelSpec(depth=18)
    torch.manual_seed(3)
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "resnet18-00000000.pth"
    torch.save(build_network(spec).state_dict(), file)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("edge_resnet.network.weights.default_address", lambda *_: (f"http://127.0.0.1:9/{file.name}", ""))
    network = build_network(spec)
    assert load_weights(network, spec, argument) == identity
    assert _equal(network.state_dict(), torch.load(file, weights_only=True))


@pytest.mark.parametrize(
    ("spec", "file"),
    [
        (replace(SPEC, depth=20, shortcut="A"), "cifar10/resnet20-12fca82f.th"),
        (replace(SPEC, depth=32, shortcut="A"), "cifar10/resnet32-d509ac18.th"),
        (ModelSpec(depth=18), "imagenet/resnet18_small_blocks_bnstats.safetensors"),
        (ModelSpec(depth=50), "imagenet/resnet50_large_blocks_bnstats.safetensors"),
    ],
    ids=str,
)
def test_real_checkpoints_load(real_data: Path, spec: ModelSpec, file: str) -> None:
    """The published files load, and are refused for another shortcut option."""
    assert load_weights(build_network(spec), spec, str(real_data / "weights" / file)).startswith("sha256:")
