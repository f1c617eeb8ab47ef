"""export.py: structure and names of the graph for all families and shortcuts, its results against torch's, and wrong graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from exported import deployable, exported, image_batch, logits, small
from onnx import numpy_helper
from PIL import Image
from torch import nn
from torchvision.transforms import functional

from edge_resnet.core.errors import ExportError
from edge_resnet.core.records import ModelSpec, Preprocess
from edge_resnet.network import ResNet
from edge_resnet.network.export import INPUT, OPSET, OUTPUT, VERIFY_BATCHES, Deployable, export, verify
from edge_resnet.runtime.agreement import TOLERANCE

NETWORKS = {
    "A": small("A"),
    "B": small("B"),
    "C": small("C"),
    "plain": small(plain=True),
    "resnet18": ModelSpec("imagenet", 18, classes=10, input_size=32),
    "resnet50a": ModelSpec("imagenet", 50, "A", classes=10, input_size=32),
}
#: All operators that TensorRT 8.6 has to read.
OPS = {"Cast", "Transpose", "Sub", "Mul", "Conv", "Relu", "MaxPool", "Add", "GlobalAveragePool", "Flatten", "Gemm"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """OpenMP's threads wait for each other: if another process uses a core, several are ten times slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name == "resnet50a")) for name in NETWORKS], scope="module"
)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    """Every network."""
    return NETWORKS[request.param]


@pytest.fixture(scope="module")
def model(spec: ModelSpec) -> Deployable:
    """The network in torch."""
    return deployable(spec)


@pytest.fixture(scope="module")
def path(spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network's file."""
    written = tmp_path_factory.mktemp("export") / "model.onnx"
    written.write_bytes(exported(spec))
    return written


def torch_logits(model: nn.Module, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        result: npt.NDArray[np.float32] = model(torch.from_numpy(images)).numpy()
    return result


def altered(tmp_path: Path, change: Callable[[onnx.GraphProto], object]) -> Path:
    """The smallest network's file after ``change``."""
    model = onnx.load_from_string(exported(small()))
    change(model.graph)
    onnx.save(model, tmp_path / "altered.onnx")
    return tmp_path / "altered.onnx"


def scale(graph: onnx.GraphProto, name: str, factor: float) -> None:
    tensor = next(tensor for tensor in graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))


def test_torch_and_onnx_runtime_agree(spec: ModelSpec, model: Deployable, path: Path) -> None:
    """At the batches that verify uses and at another one, logits agree to 1e-4 of the largest; verify returns the difference."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = image_batch(9, spec.input_size)
    worst = 0.0
    for batch in (1, 2, 5, 9):
        wanted = torch_logits(model, images[:batch])
        found = session.run(None, {INPUT: images[:batch]})[0]
        assert found == pytest.approx(wanted, abs=TOLERANCE * max(1, np.abs(wanted).max()))
        if batch in VERIFY_BATCHES:
            worst = max(worst, float(np.abs(found - wanted).max()))
    assert verify(model, path, images) == pytest.approx(worst, abs=1e-5)


def test_the_graph_holds_only_what_tensorrt_reads(spec: ModelSpec, path: Path) -> None:
    """Opset 17, eleven operators, no Constant and no Identity, valid in full, and no domain except ONNX's."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert {node.op_type for node in model.graph.node} <= OPS
    assert {node.domain for node in model.graph.node} == {""}
    assert ("MaxPool" in {node.op_type for node in model.graph.node}) == (spec.family == "imagenet")


def test_uint8_images_meet_the_cast_first(spec: ModelSpec, path: Path) -> None:
    """The one input is uint8 (batch, H, W, 3), read by the Cast to float alone; the one output is float (batch, classes)."""
    graph = onnx.load(path).graph
    [given], [result] = graph.input, graph.output
    assert (given.name, given.type.tensor_type.elem_type) == (INPUT, onnx.TensorProto.UINT8)
    assert (result.name, result.type.tensor_type.elem_type) == (OUTPUT, onnx.TensorProto.FLOAT)
    size = spec.input_size
    shapes = [[axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in (given, result)]
    assert shapes == [["batch", size, size, 3], ["batch", spec.classes]]
    assert [node.name for node in graph.node if INPUT in node.input] == [graph.node[0].name]
    assert [node.op_type for node in graph.node[:4]] == ["Cast", "Transpose", "Sub", "Mul"]


def test_batch_norm_is_folded_and_no_weight_is_lost(model: Deployable, path: Path) -> None:
    """There are as many Conv and Gemm nodes as the network applies layers, and every weight of theirs is an initializer."""
    graph = onnx.load(path).graph
    modules = list(model.modules())
    padded = sum(type(module).__name__ == "PadShortcut" for module in modules)
    layers = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in modules)
    weighted = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    stored = {tensor.name for tensor in graph.initializer}
    assert len(weighted) == layers + padded
    assert all(set(node.input[1:]) <= stored for node in weighted)


def test_names_are_those_of_the_torch_modules(model: Deployable, path: Path) -> None:
    """A Conv or Gemm has the name of its module, weight and bias that of the module's; an Add that of its block."""
    graph = onnx.load(path).graph
    modules = dict(model.network.named_modules())
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert type(modules[node.name]).__name__ in ("Conv2d", "Linear", "PadShortcut")
            assert list(node.input[1:]) == [f"{node.name}.{role}" for role in ("weight", "bias")][: len(node.input) - 1]
        if node.op_type == "Add":
            assert node.name.removesuffix(".add") in modules
    assert {"conv1", "layer1.0.conv1", "layer1.0.relu", "layer2.0.conv2", "avgpool", "fc"} <= {node.name for node in graph.node}
    expected = ("fc.weight", "fc.bias", "conv1.weight", "layer1.0.conv1.weight")
    assert set(expected) <= {tensor.name for tensor in graph.initializer}


def test_names_are_unique_and_tensors_have_the_names_of_their_nodes(path: Path) -> None:
    """No two nodes, tensors or weights share a name; each node's output has the node's name, except for the logits."""
    graph = onnx.load(path).graph
    made = [output for node in graph.node for output in node.output]
    everything = made + [tensor.name for tensor in graph.initializer] + [INPUT]
    assert len(set(everything)) == len(everything)
    assert len({node.name for node in graph.node}) == len(graph.node)
    assert made == [*(node.name for node in graph.node[:-1]), OUTPUT]
    assert {tensor for node in graph.node for tensor in node.input} == set(everything) - {OUTPUT}


def test_the_export_is_a_single_file(tmp_path: Path) -> None:
    """One file is written, with all weights inside, and two exports of one network are equal to the byte."""
    for name in ("first.onnx", "second.onnx"):
        export(deployable(small()), 16, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.onnx", "second.onnx"]
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()
    graph = onnx.load(tmp_path / "first.onnx", load_external_data=False).graph
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT and tensor.raw_data for tensor in graph.initializer)


@pytest.mark.parametrize("name", ["A", "C", "plain", "resnet18"])
def test_equal_biases_of_an_untrained_network_are_no_obstacle(name: str, tmp_path: Path) -> None:
    """Fresh batch norms all fold to one bias, which the exporter shares through Identity nodes: here each node reads it."""
    spec = NETWORKS[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(exported(spec, trained=False))
    graph = onnx.load(path).graph
    stored = {tensor.name for tensor in graph.initializer}
    assert {node.op_type for node in graph.node} <= OPS
    assert all(set(node.input[1:]) <= stored for node in graph.node if node.op_type in ("Conv", "Gemm"))
    verify(deployable(spec, trained=False), path, image_batch(5, spec.input_size))


def test_a_network_in_training_mode_is_exported_for_inference(tmp_path: Path) -> None:
    """Batch norm's running statistics are used, not the batch's, whatever the network's mode."""
    model = deployable(small())
    wanted = torch_logits(model, image_batch(5, 16))
    export(model.train(), 16, tmp_path / "model.onnx")
    assert logits(tmp_path / "model.onnx", image_batch(5, 16)) == pytest.approx(wanted, abs=1e-4)
    verify(model, tmp_path / "model.onnx", image_batch(5, 16))


def test_the_normalisation_inside_is_torchvisions(tmp_path: Path) -> None:
    """What the network receives is torchvision's to_tensor and normalize of the same image, passed through here."""
    preprocess = Preprocess(mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 1.0))
    export(Deployable(nn.Flatten(), preprocess), 12, tmp_path / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)
    images[0, :2] = [[0, 0, 0]], [[255, 255, 255]]
    wanted = [
        functional.normalize(functional.to_tensor(Image.fromarray(image)), preprocess.mean, preprocess.std) for image in images
    ]
    assert logits(tmp_path / "model.onnx", images) == pytest.approx(torch.stack(wanted).flatten(1).numpy(), abs=2e-6)


@pytest.mark.parametrize(
    "weight", ["conv1.weight", "layer2.0.downsample.0.weight", "layer3.0.conv2.weight", "fc.bias", "mul.weight"]
)
def test_one_altered_weight_is_noticed(weight: str, tmp_path: Path) -> None:
    """A graph with one weight tensor off by one percent fails."""
    path = altered(tmp_path, lambda graph: scale(graph, weight, 1.01))
    with pytest.raises(ExportError, match="differs from torch at batch 1"):
        verify(deployable(small()), path, image_batch(5, 16))


def test_a_weight_that_is_not_finite_is_noticed(tmp_path: Path) -> None:
    """NaN fails, although it compares as false."""
    path = altered(tmp_path, lambda graph: scale(graph, "fc.bias", np.nan))
    with pytest.raises(ExportError, match="max abs nan"):
        verify(deployable(small()), path, image_batch(5, 16))


def test_another_number_of_classes_is_noticed(tmp_path: Path) -> None:
    """A graph with another head fails, and the message has both shapes."""
    other = ModelSpec("cifar", 8, classes=7, input_size=16)
    (tmp_path / "model.onnx").write_bytes(exported(other))
    with pytest.raises(ExportError, match=r"\(1, 7\) for batch 1, torch \(1, 10\)"):
        verify(deployable(small()), tmp_path / "model.onnx", image_batch(5, 16))


def test_a_graph_that_mixes_the_batch_up_is_noticed(tmp_path: Path) -> None:
    """A graph that is right for one image and wrong for several fails; here it averages over the batch."""

    def average(graph: onnx.GraphProto) -> None:
        last = graph.node[-1]
        last.output[0] = "mixed"
        graph.node.append(onnx.helper.make_node("ReduceMean", ["mixed"], ["mean"], name="mean", axes=[0], keepdims=1))
        graph.node.append(onnx.helper.make_node("Sub", ["mixed", "mean"], ["off"], name="off"))
        graph.node.append(onnx.helper.make_node("Sub", ["mixed", "off"], [OUTPUT], name="out"))

    with pytest.raises(ExportError, match="at batch 2"):
        verify(deployable(small()), altered(tmp_path, average), image_batch(5, 16))


class _Unexportable(nn.Module):
    """Uses an operator that opset 17 does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x).flatten(1)


class _Twins(nn.Module):
    """Two nodes get one name: a module has the name of one of its parent's operators."""

    def __init__(self) -> None:
        super().__init__()
        self.add = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.add(x) + x).flatten(1)


def test_what_cannot_be_exported_is_an_error_of_one_line(tmp_path: Path) -> None:
    """An operator that ONNX does not have raises ExportError with the first line of torch's explanation."""
    with pytest.raises(ExportError, match="could not export") as caught:
        export(Deployable(_Unexportable(), Preprocess()), 8, tmp_path / "model.onnx")
    assert "\n" not in caught.value.message


def test_two_things_of_one_name_are_refused(tmp_path: Path) -> None:
    """Calibration tables refer to names, so a conflict is an error and is not resolved silently."""
    with pytest.raises(ExportError, match="one name"):
        export(Deployable(_Twins(), Preprocess()), 8, tmp_path / "model.onnx")


def test_the_exporter_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    """No weight changes, and the network can still be trained: batch norm is folded in the file only."""
    model = deployable(small())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    export(model, 16, tmp_path / "model.onnx")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert isinstance(model.network, ResNet)
    assert isinstance(model.network.bn1, nn.BatchNorm2d)
