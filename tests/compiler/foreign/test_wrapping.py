"""A wrapped network computes what the ONNX file computes, on any batch, in the form that edge-resnet's own graphs have."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from exported import image_batch, logits
from foreignnets import CLASSES, NETWORKS, SIZE, exported, graph_of, network, onnx_of
from onnx import helper, numpy_helper
from torch import nn

from edge_resnet.artifact.graphcheck import INPUT, OUTPUT, check_graph
from edge_resnet.compiler.foreign import Wrapped, image_input, input_size, verify_wrapped, wrap
from edge_resnet.core.errors import ConfigError, EdgeResnetError, ExportError, WeightsError
from edge_resnet.core.records import NORMALISATIONS, Preprocess

GIVEN = Preprocess(SIZE, SIZE)
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def _wrapped(content: bytes | onnx.ModelProto, preprocess: Preprocess = GIVEN) -> Wrapped:
    model = onnx.load_model_from_string(content) if isinstance(content, bytes) else content
    made = wrap(model, preprocess, "it")
    verify_wrapped(made, image_batch(5, preprocess.crop))
    return made


def _operators(made: Wrapped) -> Counter[str]:
    return Counter(node.op_type for node in made.graph.graph.node)


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_answers_are_those_of_torch(name: str, opset: int) -> None:
    """On a batch of three, from every opset; the graph is of opset 17 and passes the check of artifacts."""
    made = _wrapped(onnx_of(name, opset))
    images = image_batch(3, SIZE, seed=1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (GIVEN.mean, GIVEN.std))
    with torch.inference_mode():
        expected = network(name)((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
    assert logits(made.graph, images) == pytest.approx(expected, abs=1e-4)
    assert [entry.version for entry in made.graph.opset_import] == [17]
    assert (made.graph.graph.input[0].name, made.graph.graph.output[0].name) == (INPUT, OUTPUT)


@pytest.mark.slow  # torch.export takes seconds for each
@pytest.mark.skipif(find_spec("onnxscript") is None, reason="onnxscript is not installed, which the newer exporter needs")
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_newer_exporter(name: str, opset: int, fixed: bool) -> None:
    """Its ReduceMean and its Reshape become what TensorRT 8.6 reads."""
    made = _wrapped(onnx_of(name, opset, newer=True, fixed=fixed))
    assert not _operators(made) & Counter(("ReduceMean", "Reshape", "Squeeze"))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_for_one_image_takes_five(name: str, tmp_path: Path) -> None:
    """Where its reshapes allow it, and they do; the artifact's check accepts the file."""
    made = _wrapped(onnx_of(name, fixed=True))
    assert logits(made.graph, image_batch(5, SIZE)).shape == (5, CLASSES)
    onnx.save(made.graph, tmp_path / "model.onnx")
    check_graph(tmp_path / "model.onnx")


def test_layers_have_the_form_that_int8_knows() -> None:
    """Batch norms behind convolutions are folded, means are pools, reshapes flatten; those in front of convolutions stay."""
    joined, dense = _operators(_wrapped(onnx_of("joined"))), _operators(_wrapped(onnx_of("dense")))
    assert joined["BatchNormalization"] == 0
    assert (joined["GlobalAveragePool"], joined["Flatten"]) == (1, 1)
    assert dense["BatchNormalization"] == 3
    assert dense.keys() <= {
        "Cast", "Transpose", "Sub", "Mul", "Conv", "BatchNormalization", "Relu", "Concat", "AveragePool", "GlobalAveragePool",
        "Flatten", "Gemm",
    }  # fmt: skip


def test_names_are_those_of_the_modules() -> None:
    """Nodes, outputs and weights; none occurs twice."""
    graph = _wrapped(onnx_of("joined")).graph.graph
    names = [node.name for node in graph.node]
    assert {"stem.0", "small", "large", "head"} <= set(names)
    tensors = [*(output for node in graph.node for output in node.output), *(tensor.name for tensor in graph.initializer)]
    assert len(set(names)) == len(names)
    assert len(set(tensors)) == len(tensors)
    assert {"small.weight", "small.bias"} <= set(tensors)


@pytest.mark.parametrize("layer", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sequential(nn.Softmax(1), nn.Identity())])
def test_a_final_softmax_goes_and_is_told(layer: nn.Module) -> None:
    """The graph gives logits."""
    made = _wrapped(exported(nn.Sequential(network("plain"), layer)))
    assert "oftmax" not in " ".join(_operators(made))
    assert any("Softmax" in change and "removed" in change for change in made.changes)
    assert logits(made.graph, image_batch(2, SIZE)) == pytest.approx(
        logits(_wrapped(onnx_of("plain")).graph, image_batch(2, SIZE)), abs=1e-5
    )


class _Normalised(nn.Module):
    """A network that takes pixels from 0 to 255."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network("joined")
        self.register_buffer("mean", torch.tensor(GIVEN.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(GIVEN.std).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner((images / 255 - self.mean) / self.std)
        return logits


def test_a_normalisation_inside_becomes_the_preprocessing() -> None:
    """The graph is the same as with the normalisation outside, and the manifest gets the true mean and std."""
    none = Preprocess(SIZE, SIZE, "bilinear", *NORMALISATIONS["none"])
    made = _wrapped(exported(_Normalised()), none)
    assert made.preprocess.mean == pytest.approx(GIVEN.mean, abs=1e-6)
    assert made.preprocess.std == pytest.approx(GIVEN.std, abs=1e-6)
    assert _operators(made) == _operators(_wrapped(onnx_of("joined")))
    assert any("normalisation" in change for change in made.changes)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding_is_made_explicit(auto_pad: str) -> None:
    """For convolutions and pools, as ONNX defines it."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], name="conv", auto_pad=auto_pad, strides=[2, 2], kernel_shape=[3, 3]),
        helper.make_node("AveragePool", ["a"], ["b"], name="pool", auto_pad=auto_pad, strides=[2, 2], kernel_shape=[3, 3]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="gap"),
    ]
    made = _wrapped(graph_of(nodes, "c", {"w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32)}))
    assert not any(attribute.name == "auto_pad" for node in made.graph.graph.node for attribute in node.attribute)


@pytest.mark.parametrize("turned", [0, 1])
def test_a_gemm_has_its_factors_in_its_weights(turned: int) -> None:
    """alpha, beta, a weight that is (in, out), and a bias of one row."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(CLASSES, 3) if turned else (3, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["a"], name="gap"),
        helper.make_node("Flatten", ["a"], ["b"], name="flat"),
        helper.make_node("Gemm", ["b", "w", "c"], ["d"], name="fc", alpha=0.5, beta=2.0, transB=turned),
    ]
    made = _wrapped(graph_of(nodes, "d", {"w": weight, "c": rng.normal(size=(1, CLASSES)).astype(np.float32)}))
    gemm = made.graph.graph.node[-1]
    assert {attribute.name: attribute.i for attribute in gemm.attribute} == {"transB": 1}


def test_a_reshape_of_the_batch_is_refused_by_name() -> None:
    """It holds for one image alone, and no one can say for which others."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["a"], name="gap"),
        helper.make_node("Reshape", ["a", "shape"], ["b"], name="mixes"),
        helper.make_node("Transpose", ["b"], ["d"], name="back", perm=[1, 0]),
    ]
    model = graph_of(nodes, "d", {"shape": np.array([3, 1], np.int64)}, shape=[1, 3, SIZE, SIZE])
    with pytest.raises(WeightsError, match=r"node mixes \(Reshape\).*one image alone") as error:
        wrap(model, GIVEN, "it")
    assert error.value.hint


def test_a_network_that_couples_its_images_is_refused() -> None:
    """Fixed to one image it reads the batch as something else: with two images the answers differ, or nothing runs."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], name="conv"),
        helper.make_node("Transpose", ["a"], ["b"], name="turn", perm=[1, 0, 2, 3]),
        helper.make_node("Conv", ["b", "v"], ["c"], name="second"),
        helper.make_node("GlobalAveragePool", ["c"], ["d"], name="gap"),
        helper.make_node("Transpose", ["d"], ["e"], name="back", perm=[1, 0, 2, 3]),
    ]
    weights = {"w": np.ones((4, 3, 1, 1), np.float32), "v": np.ones((1, 1, 1, 1), np.float32)}
    model = graph_of(nodes, "e", weights, shape=[1, 3, SIZE, SIZE])
    with pytest.raises(EdgeResnetError) as error:
        verify_wrapped(wrap(model, GIVEN, "it"), image_batch(5, SIZE))
    assert isinstance(error.value, ExportError | WeightsError)
    assert error.value.hint


def test_a_verification_that_fails_is_an_error() -> None:
    """A weight that was changed on the way is found."""
    made = wrap(onnx.load_model_from_string(onnx_of("plain")), GIVEN, "it")
    weight = next(tensor for tensor in made.graph.graph.initializer if tensor.name.endswith("weight") and len(tensor.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.05), weight.name))
    with pytest.raises(ExportError, match="differs from the original"):
        verify_wrapped(made, image_batch(5, SIZE))


@pytest.mark.parametrize(
    ("shape", "asked", "match"),
    [
        (["n", 3, "h", "w"], None, "any height"),
        (["n", 3, 16, 24], None, "24 x 16"),
        (["n", 3, 16, 16], 32, "16 pixels, not 32"),
    ],
)
def test_the_size_is_said_once(shape: list[object], asked: int | None, match: str) -> None:
    """By the graph or by the user."""
    model = graph_of([helper.make_node("GlobalAveragePool", ["image"], ["a"], name="gap")], "a", shape=shape)
    with pytest.raises(ConfigError, match=match) as error:
        input_size(image_input(model, "it"), asked, "it")
    assert error.value.hint
    model = graph_of([helper.make_node("GlobalAveragePool", ["image"], ["a"], name="gap")], "a", shape=["n", 3, "h", "w"])
    assert input_size(image_input(model, "it"), 48, "it") == 48


def _randomised(path: Path) -> onnx.ModelProto:
    """A light model with seeded random weights: as shipped, all weights of a tensor are one number, all images look alike."""
    model = onnx.load(path)
    rng, constants = np.random.default_rng(0), {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "ConstantOfShape"]:
        shape = tuple(constants[node.input[0]])
        fan = max(int(np.prod(shape[1:])), 1)
        values: npt.NDArray[np.float64] = rng.normal(0, (2 / fan) ** 0.5, shape) if len(shape) > 1 else rng.uniform(0.5, 1, shape)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
        model.graph.node.remove(node)
    model.ir_version = 8
    return model


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "densenet121", "inception_v1", "inception_v2")),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("shufflenet", "bvlc_alexnet", "zfnet512", "vgg19")),
    ],
)
def test_onnxs_own_models(name: str) -> None:
    """Opset 9, a batch of one fixed, Sum, Scale layers, Dropout, LRN, and a softmax at the end; with random weights."""
    model = _randomised(LIGHT / f"light_{name}.onnx")
    made = wrap(model, Preprocess(224, 224), name)
    assert made.classes == 1000
    verify_wrapped(made, image_batch(5, 224))
    found = logits(made.graph, image_batch(2, 224))
    assert np.abs(found[0] - found[1]).max() > 1e-4 * np.abs(found).max(), "the answers do not depend on the image"
