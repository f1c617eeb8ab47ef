"""The networks against torchvision, the paper's tables and their own definition. Uses no weights files."""

from __future__ import annotations

import io
from collections.abc import Iterator

import onnx
import onnxruntime
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edge_resnet.core.records import ModelSpec, Shortcut
from edge_resnet.network.resnet import BasicBlock, Bottleneck, PadShortcut, ResNet, build_network

OPTIONS: tuple[Shortcut, ...] = ("A", "B", "C")
DEPTHS = (18, 34, 50, 101, 152)
#: The same with a mark on those that take long to compute.
COMPUTED = [pytest.param(depth, marks=[pytest.mark.slow] * (depth > 50)) for depth in DEPTHS]


def cifar(shortcut: Shortcut = "A", *, depth: int = 8, plain: bool = False) -> ModelSpec:
    return ModelSpec("cifar", depth, shortcut, plain, classes=10, input_size=32)


def seeded(spec: ModelSpec, seed: int = 0) -> ResNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(spec)


def on_meta(spec: ModelSpec, *, stride_on_first: bool = False) -> ResNet:
    with torch.device("meta"):
        return build_network(spec, stride_on_first=stride_on_first)


def lively_state(network: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict with weights of He's scale and batch norms that all differ, on any device."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in network.state_dict().items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(1)
        elif value.ndim > 1:
            state[key] = torch.randn(value.shape, generator=draw) * (2 / value[0].numel()) ** 0.5
        elif key.endswith(("bias", "running_mean")):
            state[key] = torch.randn(value.shape, generator=draw) * 0.1
        else:
            state[key] = torch.rand(value.shape, generator=draw) * 0.5 + 0.5
    return state


def images(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def blocks_of(network: ResNet) -> Iterator[tuple[str, BasicBlock | Bottleneck]]:
    for name, module in network.named_modules():
        if isinstance(module, BasicBlock | Bottleneck):
            yield name, module


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("depth", COMPUTED)
def test_imagenet_option_b_is_torchvisions_network(depth: int) -> None:
    """Keys, their order and shapes are equal, and with the same state dict the logits are equal."""
    with torch.device("meta"):
        theirs = torchvision.models.get_model(f"resnet{depth}")
    ours = on_meta(ModelSpec("imagenet", depth))
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [(k, v.shape) for k, v in theirs.state_dict().items()]
    state = lively_state(theirs)
    ours.load_state_dict(state, assign=True)
    theirs.load_state_dict(state, assign=True)
    with torch.inference_mode():
        got, wanted = ours.eval()(images(2, 3, 64, 64)), theirs.eval()(images(2, 3, 64, 64))
    assert got.shape == (2, 1000)
    assert wanted.std() > 1e-3
    assert not torch.equal(wanted[0], wanted[1])
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("depth", DEPTHS)
def test_first_convolution_may_carry_the_stride(depth: int) -> None:
    """stride_on_first moves a bottleneck's stride to its first 1x1; neither parameters nor basic blocks change."""
    usual, papers = on_meta(ModelSpec("imagenet", depth)), on_meta(ModelSpec("imagenet", depth), stride_on_first=True)
    assert {k: v.shape for k, v in usual.state_dict().items()} == {k: v.shape for k, v in papers.state_dict().items()}
    for (name, ours), (_, theirs) in zip(blocks_of(usual), blocks_of(papers), strict=True):
        stride = (2, 2) if name in ("layer2.0", "layer3.0", "layer4.0") else (1, 1)
        first, second = ((1, 1), stride) if depth >= 50 else (stride, (1, 1))
        assert (ours.conv1.stride, ours.conv2.stride) == (first, second)
        assert (theirs.conv1.stride, theirs.conv2.stride) == (stride, (1, 1))


HUGE = pytest.param("cifar", 1202, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("family", "depth"), [*(("imagenet", d) for d in DEPTHS), *(("cifar", d) for d in (8, 20, 32, 44, 56, 110)), HUGE]
)
def test_depth_counts_the_layers_with_weights(family: str, depth: int) -> None:
    """The number of convolutions on the main path plus the classifier is the network's depth (section 4)."""
    spec = ModelSpec("imagenet", depth) if family == "imagenet" else cifar(depth=depth)
    layers = [n for n, m in on_meta(spec).named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "downsample" not in n]
    assert len(layers) == depth


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("spec", [cifar(depth=20), ModelSpec("imagenet", 34), ModelSpec("imagenet", 50)], ids=lambda s: s.name)
def test_each_option_has_its_module_on_each_shortcut(spec: ModelSpec, option: Shortcut) -> None:
    """A pads where the shape changes, B projects there, C projects everywhere; the rest are identities (section 3.3)."""
    network = on_meta(ModelSpec(spec.family, spec.depth, option, classes=spec.classes))
    for name, block in blocks_of(network):
        stage, place = name.removeprefix("layer").split(".")
        changes = place == "0" and (stage != "1" or isinstance(block, Bottleneck))
        stride = 2 if changes and stage != "1" else 1
        if option == "C" or (option == "B" and changes):
            assert isinstance(block.downsample, nn.Sequential)
            projection, norm = block.downsample
            assert (projection.kernel_size, projection.stride, projection.bias) == ((1, 1), (stride, stride), None)
            assert isinstance(norm, nn.BatchNorm2d)
        elif changes:
            assert isinstance(block.downsample, PadShortcut)
            assert block.downsample.stride == stride
        else:
            assert block.downsample is None


@pytest.mark.parametrize("family", ["cifar", "imagenet"])
def test_shortcuts_of_option_a_cost_nothing(family: str) -> None:
    """A has the parameters and keys of the plain twin; B has more, and C more than B."""
    depth = 20 if family == "cifar" else 34

    def built(option: Shortcut, *, plain: bool = False) -> ResNet:
        return on_meta(ModelSpec("cifar" if family == "cifar" else "imagenet", depth, option, plain))

    counts = [parameters(built(option)) for option in OPTIONS]
    assert counts == sorted(set(counts))
    for option in OPTIONS:
        assert parameters(built(option, plain=True)) == counts[0]
    assert list(built("A").state_dict()) == list(built("C", plain=True).state_dict())
    assert not [key for key in built("A").state_dict() if "downsample" in key]


@pytest.mark.parametrize(
    ("depth", "printed", "digits"),
    [
        (20, 0.27, 2),
        (32, 0.46, 2),
        (44, 0.66, 2),
        (56, 0.85, 2),
        (110, 1.7, 1),
        pytest.param(1202, 19.4, 1, marks=pytest.mark.slow),
    ],
)
def test_cifar_parameters_are_table_6s(depth: int, printed: float, digits: int) -> None:
    """With option A the number of parameters is the paper's, to its printed digits."""
    assert round(parameters(on_meta(cifar(depth=depth))) / 1e6, digits) == printed


def test_plain_twin_adds_nothing() -> None:
    """A plain block is its residual branch and the ReLU, so the network differs from its twin with the same weights."""
    plain, residual = build_network(cifar(plain=True)), build_network(cifar())
    state = lively_state(residual)
    plain.load_state_dict(state)
    residual.load_state_dict(state)
    plain.eval(), residual.eval()
    x = images(2, 16, 9, 9)
    with torch.inference_mode():
        block = next(block for _, block in blocks_of(plain))
        branch = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
        twin = next(block for _, block in blocks_of(residual))
        assert torch.equal(block(x), torch.relu(branch))
        assert torch.equal(twin(x), torch.relu(branch + x))
        logits = plain(images(2, 3, 32, 32)), residual(images(2, 3, 32, 32))
    assert not torch.allclose(*logits, atol=1e-3)


@pytest.mark.parametrize(
    ("spec", "maps"),
    [
        (ModelSpec("imagenet", 18), [(64, 56), (128, 28), (256, 14), (512, 7)]),
        (ModelSpec("imagenet", 50), [(256, 56), (512, 28), (1024, 14), (2048, 7)]),
        (cifar(depth=20), [(16, 32), (32, 16), (64, 8)]),
    ],
    ids=lambda value: value.name if isinstance(value, ModelSpec) else "",
)
def test_stages_have_the_papers_maps(spec: ModelSpec, maps: list[tuple[int, int]]) -> None:
    """Channels and sides of every stage's output are those of table 1 and section 4.2."""
    network, seen = on_meta(spec), []
    for index in range(len(maps)):
        network.get_submodule(f"layer{index + 1}").register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape)))
    network.eval()(torch.empty(1, 3, spec.input_size, spec.input_size, device="meta"))
    assert seen == [(1, channels, side, side) for channels, side in maps]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    ("family", "depth", "size", "classes"),
    [("cifar", 8, (32, 32), 10), ("cifar", 8, (27, 9), 3), ("cifar", 14, (64, 40), 100), ("imagenet", 18, (33, 70), 2)],
)
def test_any_size_and_number_of_classes_fit(
    option: Shortcut, family: str, depth: int, size: tuple[int, int], classes: int
) -> None:
    """(N, 3, H, W) gives (N, classes) for odd and oblong images, and an image's logits do not depend on its neighbours."""
    network = seeded(ModelSpec("cifar" if family == "cifar" else "imagenet", depth, option, classes=classes)).eval()
    batch = images(3, 3, *size)
    with torch.inference_mode():
        logits = network(batch)
        alone = torch.cat([network(image[None]) for image in batch])
    assert logits.shape == (3, classes)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "spec",
    [*(cifar(option) for option in OPTIONS), cifar(plain=True), ModelSpec("imagenet", 18, classes=5), ModelSpec("imagenet", 50)],
    ids=lambda s: f"{s.name}{s.shortcut}",
)
def test_gradients_reach_every_parameter(spec: ModelSpec) -> None:
    """One backward pass leaves a finite gradient, not all zero, on every parameter."""
    network = seeded(spec).train()
    (network(images(4, 3, 64, 64)) * images(4, spec.classes)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_seed_determines_the_weights() -> None:
    """The same seed draws the same weights, another seed others."""
    first, same, other = (seeded(cifar("B"), seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(value, same[key]) for key, value in first.items())
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_fresh_weights_have_hes_variance() -> None:
    """Convolutions start with a standard deviation of sqrt(2 / fan-out), batch norms as the identity."""
    network = seeded(ModelSpec("imagenet", 18))
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 30_000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


@st.composite
def pad_cases(draw: st.DrawFn) -> tuple[PadShortcut, torch.Tensor]:
    channels, more = draw(st.integers(1, 9)), draw(st.integers(0, 11))
    height, width = draw(st.integers(1, 13)), draw(st.integers(1, 13))
    shortcut = PadShortcut(channels, channels + more, draw(st.sampled_from([1, 2, 3])))
    return shortcut, images(draw(st.integers(1, 3)), channels, height, width, seed=draw(st.integers(0, 99)))


@given(case=pad_cases())
def test_padding_keeps_the_pixels_between_zero_channels(case: tuple[PadShortcut, torch.Tensor]) -> None:
    """Option A: every stride-th pixel, with zero channels before and after, and the odd one after."""
    shortcut, x = case
    out = shortcut(x)
    channels, zeros = x.shape[1], out.shape[1] - x.shape[1]
    before = zeros // 2
    assert torch.equal(out[:, before : before + channels], x[:, :, :: shortcut.stride, :: shortcut.stride])
    assert not out[:, :before].any()
    assert not out[:, before + channels :].any()
    assert (shortcut.before, shortcut.after) == (before, zeros - before)
    assert list(shortcut.state_dict()) == []


@given(case=pad_cases())
def test_export_form_of_padding_computes_the_same(case: tuple[PadShortcut, torch.Tensor]) -> None:
    """The fixed convolution gives the same numbers bit for bit, for odd sizes too."""
    shortcut, x = case
    expected = shortcut(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
        assert torch.equal(shortcut(x), expected)


def test_exported_padding_is_one_convolution() -> None:
    """A real export has a Conv and neither Slice nor Pad, and ONNX Runtime computes the same as torch, for even and odd sizes."""
    shortcut, file = PadShortcut(6, 12, 2).eval(), io.BytesIO()
    axes = {"x": {0: "n", 2: "h", 3: "w"}}
    torch.onnx.export(shortcut, (images(1, 6, 8, 8),), file, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes=axes)
    assert [node.op_type for node in onnx.load_from_string(file.getvalue()).graph.node if node.op_type != "Constant"] == ["Conv"]
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for height, width in ((8, 8), (7, 8), (9, 5), (1, 1), (2, 3)):
        x = images(2, 6, height, width)
        (got,) = session.run(None, {"x": x.numpy()})
        assert torch.equal(torch.from_numpy(got), shortcut(x))
    assert list(shortcut.state_dict()) == []


def test_export_leaves_the_network_as_it_was() -> None:
    """After an export an option-A network still slices and pads in torch, with unchanged logits."""
    network, x = seeded(cifar()).eval(), images(1, 3, 32, 32)
    with torch.inference_mode():
        before = network(x)
    torch.onnx.export(network, (x,), io.BytesIO(), dynamo=False, opset_version=17)
    with torch.inference_mode():
        assert torch.equal(network(x), before)
