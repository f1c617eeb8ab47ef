"""hf:// with the real huggingface_hub against a Hub on loopback: files, commits, the cache, offline, and every refusal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from servers.hub import COMMIT, OLDER, Hub, Repository, asked

from edge_resnet.core.errors import WeightsError
from edge_resnet.core.modelnames import spec_named
from edge_resnet.core.records import ModelSpec, Progress
from edge_resnet.network import build_network, load_weights

constants = pytest.importorskip("huggingface_hub.constants")
SPEC = ModelSpec("cifar", 8, "A", classes=10, input_size=32)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that huggingface_hub asks, an empty cache, and no token."""
    with asked(tmp_path, monkeypatch) as running:
        yield running


def weights(seed: int = 0, spec: ModelSpec = SPEC) -> bytes:
    torch.manual_seed(seed)
    return save(build_network(spec).state_dict())


def fetch(address: str, progress: Progress | None = None) -> Any:
    from edge_resnet.network.hub import fetch

    return fetch(address, progress=progress)


def test_a_file_with_its_commit_config_and_license(hub: Hub) -> None:
    """The weights are in the cache, the address names the commit, and what the repository says is read."""
    hub.repositories["some/net"] = Repository(
        {"model.safetensors": weights(), "config.json": b'{"num_classes": 10}', "README.md": b""}
    )
    found = fetch("hf://some/net")
    assert found.address == f"hf://some/net/model.safetensors@{COMMIT}"
    assert (found.config, found.preprocessor, found.license) == ({"num_classes": 10}, {}, "apache-2.0")
    assert found.path.read_bytes() == weights()
    hub.requests.clear()
    assert fetch("hf://some/net@main").path == found.path
    assert not [request for request in hub.requests if request.startswith("GET") and "resolve" in request], "it was cached"


def test_a_revision_and_a_file(hub: Hub) -> None:
    """@REVISION takes a branch or a commit, /FILE a file; load_weights takes the same address."""
    files = {"model.safetensors": weights(1), "other/ema.safetensors": weights(2)}
    hub.repositories["some/net"] = Repository(files, older={"model.safetensors": weights(3)})
    assert fetch("hf://some/net@v1").revision == fetch(f"hf://some/net@{OLDER}").revision == OLDER
    network = build_network(SPEC)
    identity = load_weights(network, SPEC, "hf://some/net/other/ema.safetensors")
    assert identity.startswith("sha256:")
    torch.manual_seed(2)
    assert torch.equal(network.conv1.weight, build_network(SPEC).conv1.weight)


def test_without_a_network_the_cache_is_taken(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A Hub out of order is told in a line; in offline mode it is not asked at all; what is not cached is refused."""
    hub.repositories["some/net"] = Repository({"model.safetensors": weights()})
    first = fetch("hf://some/net")
    hub.down = True
    assert fetch("hf://some/net").path == first.path
    assert "taken from the cache" in caplog.text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert fetch("hf://some/net").address == first.address
    assert fetch(f"hf://some/net@{COMMIT[:12]}").path == first.path
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set") as caught:
        fetch("hf://some/other")
    assert "--weights FILE" in caught.value.hint
    assert hub.requests == []


def test_a_token_of_its_own_configuration(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private repository opens with huggingface_hub's token, and no error shows one."""
    hub.repositories["some/net"] = Repository({"model.safetensors": weights()}, private=True)
    monkeypatch.setenv("HF_TOKEN", "wrong-token")
    with pytest.raises(WeightsError, match="does not exist on the Hub, or is private") as caught:
        fetch("hf://some/net")
    assert "wrong-token" not in str(caught.value) + caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert fetch("hf://some/net").path.is_file()


@pytest.mark.parametrize(
    ("address", "words", "hint"),
    [
        ("hf://some/none", "does not exist on the Hub", "hf auth login"),
        ("hf://some/gated", "is gated", "accept its terms"),
        ("hf://some/pickle", "only pytorch_model.bin, which are never loaded", "--weights FILE"),
        ("hf://some/pickle/pytorch_model.bin", "no safetensors file", "--weights FILE"),
        ("hf://some/empty", "has no weights", "it has README.md"),
        ("hf://some/several", "several files of weights", "a.safetensors, b.safetensors"),
        ("hf://some/parts", "in several parts", ""),
        ("hf://some/net@nowhere", "no revision nowhere", "branch"),
        ("hf://some/net/absent.safetensors", "no file absent.safetensors", "it has model.safetensors"),
        ("hf://some/badconfig", "no JSON", ""),
        ("hf://some", "no address", "hf://OWNER/NAME"),
        ("hf://some/net/../../x.safetensors", "no address", "hf://OWNER/NAME"),
    ],
)
def test_what_is_refused(hub: Hub, address: str, words: str, hint: str) -> None:
    """Each is one line that names the cause, with a hint; pickles are not even downloaded."""
    hub.repositories |= {
        "some/net": Repository({"model.safetensors": weights()}),
        "some/gated": Repository({"model.safetensors": weights()}, gated=True),
        "some/pickle": Repository({"pytorch_model.bin": b"never read", "config.json": b"{}"}),
        "some/empty": Repository({"README.md": b""}),
        "some/several": Repository({"a.safetensors": b"", "b.safetensors": b""}),
        "some/parts": Repository({"m-1.safetensors": b"", "m-2.safetensors": b"", "model.safetensors.index.json": b"{}"}),
        "some/badconfig": Repository({"model.safetensors": weights(), "config.json": b"[1"}),
    }
    with pytest.raises(WeightsError, match=words) as caught:
        fetch(address)
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message
    assert not any("pytorch_model.bin" in request for request in hub.requests)


def test_progress_counts_the_bytes(hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """From 0 to the file's length in steps, without a bar of the library's own; a cached file is no download."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    content = weights()
    hub.repositories["some/net"] = Repository({"model.safetensors": content})
    calls: list[tuple[str, int, int]] = []
    fetch("hf://some/net", lambda *call: calls.append(call))
    assert (calls[0], calls[-1]) == (("download", 0, len(content)), ("download", len(content), len(content)))
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert len(calls) > len(content) >> 16
    calls.clear()
    fetch("hf://some/net", lambda *call: calls.append(call))
    assert calls == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("lie", ["none", "the listing", "the listing, and no length"])
def test_a_file_that_is_too_large_is_not_downloaded(hub: Hub, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    """By the size that the listing states, else by the response's length, else where more comes than is allowed."""
    from edge_resnet.network import hub as module

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)
    limit = 3 << 16
    monkeypatch.setattr(module, "_MAX_WEIGHTS", limit)
    stated = {} if lie == "none" else {"model.safetensors": 1000}
    hub.repositories["some/net"] = Repository({"model.safetensors": weights()}, stated=stated, chunked="no length" in lie)
    arrived: list[int] = []
    with pytest.raises(WeightsError, match=r"model\.safetensors has .*, of which at most") as caught:
        fetch("hf://some/net", lambda _, done, __: arrived.append(done))
    assert "--weights FILE" in caught.value.hint
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.safetensors"))
    if lie == "none":
        assert not any("resolve" in request for request in hub.requests)
    assert all(done <= limit for done in arrived)


def test_the_command_takes_the_address_and_the_preprocessing(hub: Hub, tmp_path: Path) -> None:
    """A process with HF_ENDPOINT and HF_HOME builds it; the manifest says commit, hash, license and whose preprocessing it is."""
    spec = spec_named("resnet18-small")
    config = {
        "architecture": "resnet18", "num_classes": 3, "label_names": ["cat", "dog", "owl"],
        "pretrained_cfg": {"input_size": [3, 48, 48], "interpolation": "bicubic", "crop_pct": 0.9, "mean": [0.5] * 3,
                           "std": [0.25] * 3},
    }  # fmt: skip
    config["architecture"] = spec.name
    content = weights(0, ModelSpec("small", 18, classes=3, input_size=32))
    hub.repositories["some/net"] = Repository({"model.safetensors": content, "config.json": json.dumps(config).encode()})
    environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "edge_resnet",
        "build",
        "--weights",
        "hf://some/net",
        "--mean",
        "0.4",
        "0.4",
        "0.4",
        "-o",
        "made",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["preprocess"] == {
        "resize": 53, "crop": 48, "interpolation": "bicubic", "mean": [0.4] * 3, "std": [0.25] * 3,
    }  # fmt: skip
    origin = manifest["origin"]
    assert (origin["source"], origin["revision"]) == ("hf://some/net/model.safetensors", COMMIT)
    assert origin["preprocessing"] == "config.json (timm), mean as asked for"
    assert manifest["model"]["weights"] == f"sha256:{origin['sha256']}"
    assert (tmp_path / "made" / "labels.txt").read_text(encoding="utf-8").split() == ["cat", "dog", "owl"]
    assert f"@{COMMIT}" in done.stdout
    card = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    assert "apache-2.0" in card
    assert "bicubic" in card
