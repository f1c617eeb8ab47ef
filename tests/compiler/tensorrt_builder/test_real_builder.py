"""builder.py with NVIDIA's own parser and builder: TensorRT for RTX needs no GPU to build, and has TensorRT 11's interface."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import onnx
import pytest
from children import started
from onnx import TensorProto, helper
from rtxplans import NETWORKS, BuiltPlan, build_into, graph_of, products, read_built, request_for

from edge_resnet.artifact.enginecache import EngineTuning
from edge_resnet.compiler.tensorrt import PlanRequest
from edge_resnet.compiler.tensorrt.builder import build_plan
from edge_resnet.compiler.tensorrt.child import build_in_child
from edge_resnet.core.errors import BuildError, ConfigError
from edge_resnet.core.records import BatchProfile, Precision
from edge_resnet.measurement.layers import Layer, parse_layers
from edge_resnet.measurement.whyslow import why_not_faster

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed: it has wheels for x86-64 Linux alone"
)
#: In every run; the other networks and batches are slow.
NAMES = ("cifar20", "resnet18", "resnet50")
PRECISIONS = get_args(Precision)
TYPES = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}


@pytest.fixture
def plan_of(once: Callable[[str, Callable[[Path], None]], Path]) -> Callable[..., BuiltPlan]:
    """The plan of a network, precision and batch, built by the first worker that asks."""

    def built(network: str, precision: Precision, batch: BatchProfile | None = None) -> BuiltPlan:
        name = f"plan-{network}-{precision}-{batch.max if batch else 1}"
        return read_built(once(name, lambda folder: build_into(folder, network, precision, batch)))

    return built


@pytest.fixture
def request8(tmp_path: Path) -> PlanRequest:
    """A request for the smallest network, in FP16."""
    onnx.save(graph_of("cifar8", "fp16"), tmp_path / "model.onnx")
    return request_for(tmp_path / "model.onnx", "cifar8", "fp16")


def check_layers(plan: BuiltPlan, precision: Precision) -> None:
    """Every product of the graph is one of the plan, in the precision asked for, and every Add of the graph is found."""
    nodes = Counter(node.op_type for node in plan.graph.graph.node)
    found = products(plan)
    classifier = nodes["Gemm"] + nodes["MatMul"]
    expected = Counter({TYPES[precision]: nodes["Conv"] + classifier})
    if precision == "int8":  # the classifier stays in float
        expected = Counter({"INT8": nodes["Conv"], "FP16": classifier})
    assert Counter(layer.precision for layer in found) == expected
    adds = Counter(layer.adds for layer in plan.listing.layers if layer.adds)
    assert adds == {"alone" if precision == "int8" else "fused": nodes["Add"]}
    assert plan.listing.tensors == ("images", "logits")


def convolutions(layers: tuple[Layer, ...]) -> list[Layer]:
    """The convolutions of a plan."""
    return [layer for layer in layers if layer.kind == "correlation"]


@pytest.mark.parametrize(
    ("network", "precision"),
    [
        # ResNet-50's plans take most of the time: INT8, whose pairs stand differently in a bottleneck, in every run.
        pytest.param(network, precision, marks=pytest.mark.slow if network == "resnet50" and precision != "int8" else ())
        for network in NAMES
        for precision in PRECISIONS
    ],
)
def test_every_layer_is_built_in_its_precision(plan_of: Callable[..., BuiltPlan], network: str, precision: Precision) -> None:
    """ResNet-20, 18 and 50: no convolution is missing or left in another type, and each Add is in a convolution, but for INT8."""
    plan = plan_of(network, precision)
    check_layers(plan, precision)
    weights = sum(tensor.ByteSize() for tensor in plan.graph.graph.initializer)
    assert len(plan.content) > (weights / 5 if precision == "int8" else weights * 0.9)


@pytest.mark.parametrize("network", NAMES)
def test_int8_convolutions_read_int8(plan_of: Callable[..., BuiltPlan], network: str) -> None:
    """The pairs are where the builder wants them: every convolution reads integers, and nothing is reformatted between layers."""
    layers = plan_of(network, "int8").listing.layers
    found = convolutions(layers)
    assert len(found) == sum(node.op_type == "Conv" for node in plan_of(network, "int8").graph.graph.node)
    assert {layer.inputs[0].dtype for layer in found} == {"INT8"}
    assert not [layer.name for layer in layers if layer.moves]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, BatchProfile(1, 8, 32), BatchProfile(8, 8, 8)], ids=["1", "1-8-32", "8"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "cifar8"])
def test_every_network_is_built(
    plan_of: Callable[..., BuiltPlan], network: str, precision: Precision, batch: BatchProfile | None
) -> None:
    """All depths, precisions and batches, with as many layers as the graph has."""
    check_layers(plan_of(network, precision, batch), precision)


@pytest.mark.parametrize(("network", "precision"), [("cifar20", "fp16"), ("resnet50", "int8")])
def test_progress_reaches_its_end(plan_of: Callable[..., BuiltPlan], network: str, precision: Precision) -> None:
    """From 0 to 100 percent, never twice the same or backwards, in many steps."""
    reports = plan_of(network, precision).reports
    percents = [done for _, done, _ in reports]
    assert {(stage, total) for stage, _, total in reports} == {("build engine", 100)}
    assert percents == sorted(set(percents))
    assert (percents[0], percents[-1]) == (0, 100)
    assert len(percents) > 20


def test_a_dynamic_batch_is_built(plan_of: Callable[..., BuiltPlan]) -> None:
    """Batches of 1 to 32 in one plan; the tensors that are computed have types all the same."""
    plan = plan_of("cifar20", "int8", BatchProfile(1, 8, 32))
    check_layers(plan, "int8")
    assert plan.listing.layers[1].inputs[0].shape[0] in (-1, 8)


def test_a_warning_of_one_kind_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The builder warns of the scales of every convolution that it widens: two lines say so, with the number of warnings."""
    onnx.save(graph_of("cifar20", "int8"), tmp_path / "model.onnx")
    with caplog.at_level(logging.WARNING, logger="edge_resnet"):
        build_plan(request_for(tmp_path / "model.onnx", "cifar20", "int8"))
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"TensorRT: (foreignNode) Converting conv {what} scales to fp32. (21 warnings of this kind)"
        for what in ("activation", "weight")
    ]


def test_plans_for_targets(request8: PlanRequest) -> None:
    """One plan serves Ampere to Blackwell, as the default does; Turing gets a plan of its own, from the same graph."""
    default = parse_layers(json.loads(build_plan(request8).layers or ""))
    portable = parse_layers(json.loads(build_plan(replace(request8, targets=("SM80", "SM86", "SM89", "SM120"))).layers or ""))
    turing = build_plan(replace(request8, targets=("SM75", "SM75")))
    assert [layer.kind for layer in portable.layers] == [layer.kind for layer in default.layers]
    assert turing.layers is not None


def test_turing_emulates_int8(tmp_path: Path) -> None:
    """The plan for Turing of an INT8 graph computes in FP16, each Add inside, and the report says that INT8 gains nothing."""
    onnx.save(graph_of("cifar8", "int8"), tmp_path / "model.onnx")
    plan = build_plan(request_for(tmp_path / "model.onnx", "cifar8", "int8", targets=("SM75",)))
    listing = parse_layers(json.loads(plan.layers or ""))
    assert {layer.precision for layer in listing.layers if layer.multiplies} == {"FP16"}
    assert Counter(layer.adds for layer in listing.layers if layer.adds) == {"fused": 3}
    cause = why_not_faster(listing, "7.5")[0]
    assert (cause.cause, len(cause.layers)) == ("no_int8", 10)
    assert "--fp16" in cause.remedy


def test_turing_has_no_fp32(tmp_path: Path) -> None:
    """That is said in words, and as an option that does not fit: selftest on such a GPU has not failed.

    In a child: after this failure the library (1.7) takes Turing for the target of the process's next build, too.
    """
    onnx.save(graph_of("cifar8", "fp32"), tmp_path / "model.onnx")
    request = request_for(tmp_path / "model.onnx", "cifar8", "fp32", targets=("SM75",))
    with pytest.raises(ConfigError, match="no FP32 network for Turing"):
        build_in_child(request, tmp_path / "plan.engine")


def test_a_full_disk_is_said(request8: PlanRequest) -> None:
    """The plan was built and cannot be written: that is no crash of the build."""
    with pytest.raises(BuildError, match=r"cannot write the plan: No space left") as caught:
        build_in_child(request8, Path("/dev/full"))
    assert "disk" in caught.value.hint


@pytest.mark.parametrize("target", ["SM90", "SM87", "NONE", "__class__", ""])
def test_an_unknown_target_is_refused(request8: PlanRequest, target: str) -> None:
    """Neither Hopper nor Jetson: the error lists what there is."""
    with pytest.raises(ConfigError, match=f"does not compile for the target {target}") as caught:
        build_plan(replace(request8, targets=("SM86", target)))
    assert "SM75" in caught.value.hint


def test_the_weakly_typed_graph_is_read_too(tmp_path: Path) -> None:
    """Its pairs say INT8 without any flag: FP32 scales, and every convolution computes in INT8 all the same."""
    onnx.save(graph_of("cifar20", "int8", "weak"), tmp_path / "model.onnx")
    plan = build_plan(request_for(tmp_path / "model.onnx", "cifar20", "int8"))
    found = convolutions(parse_layers(json.loads(plan.layers or "")).layers)
    assert Counter(layer.precision for layer in found) == {"INT8": 21}


@pytest.mark.parametrize(
    ("tuning", "error", "words", "hint"),
    [
        (EngineTuning(hardware_compatible=True), ConfigError, "ignores --hardware-compatible", "leave --hardware-compatible out"),
        (EngineTuning(version_compatible=True), BuildError, "libnvinfer_lean", "leave --version-compatible out"),
        (EngineTuning(workspace_mib=1), BuildError, "within workspace limit", "a larger --workspace"),
        (EngineTuning(workspace_mib=64), None, "", ""),
        (EngineTuning(level=5), None, "", ""),
    ],
    ids=["hardware", "version", "no-workspace", "workspace", "level"],
)
def test_what_is_asked_for_is_in_effect_or_refused(
    request8: PlanRequest, tuning: EngineTuning, error: type[Exception] | None, words: str, hint: str
) -> None:
    """A setting that the library ignores in silence is an error, as is a missing library of its own; others are kept."""
    asked = replace(request8, options=replace(request8.options, tuning=tuning))
    if error is None:
        assert build_plan(asked).workspace_mib == tuning.workspace_mib
        return
    with pytest.raises(error, match=words) as caught:
        build_plan(asked)
    assert hint in caught.value.hint  # type: ignore[attr-defined]


def test_weak_typing_is_refused(request8: PlanRequest) -> None:
    """There is none, and the error offers no flag or graph that would need it."""
    with pytest.raises(ConfigError, match=r"TensorRT for RTX \S+ has no weak typing"):
        build_plan(replace(request8, typing="weak"))


def test_a_wrong_size_is_an_error(request8: PlanRequest) -> None:
    """The options say 24 pixels, the graph 16: both are in the error."""
    with pytest.raises(BuildError, match=r"min=24.*tensor has 16"):
        build_plan(replace(request8, options=replace(request8.options, input_size=24)))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda whole: b"", "cannot read the graph: the file is empty"),
        (lambda whole: b"garbage" * 9, r"cannot read the graph: Failed to parse the ONNX model\.$"),
        (lambda whole: whole[: len(whole) // 2], r"cannot read the graph: Failed to parse the ONNX model\.$"),
        (lambda whole: bytes(99), "the graph has no input"),
    ],
    ids=["empty", "garbage", "cut", "zeros"],
)
def test_a_damaged_graph_is_an_error_in_words(request8: PlanRequest, damage: Callable[[bytes], bytes], words: str) -> None:
    """No file of any content gives a plan, a crash or an error that quotes C++."""
    request8.graph.write_bytes(damage(request8.graph.read_bytes()))
    with pytest.raises(BuildError, match=words) as caught:
        build_plan(request8)
    assert "build the artifact again" in caught.value.hint
    assert "Assertion" not in caught.value.message


def test_an_operator_that_is_not_known_is_named(request8: PlanRequest) -> None:
    """The error has the node's operator and name, so that the layer can be found."""
    model = onnx.load(request8.graph)
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type, node.name = "Frobnicate", "layer1.0.odd"
    onnx.save(model, request8.graph)
    with pytest.raises(BuildError, match=r"Frobnicate layer1\.0\.odd: "):
        build_plan(request8)


@pytest.mark.parametrize("inputs", [0, 2])
def test_a_graph_with_other_inputs_is_refused(request8: PlanRequest, inputs: int) -> None:
    """A graph without an input, and one with two."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "b")]
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [1.0])
    nodes = [helper.make_node("Add", ["a", "b"] if inputs else ["c", "c"], ["y"])]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "odd", values[:inputs], [output], [] if inputs else [constant])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), request8.graph)
    with pytest.raises(BuildError, match="2 inputs" if inputs else "no input"):
        build_plan(request8)


def test_a_build_is_cancelled_by_what_progress_raises(request8: PlanRequest) -> None:
    """The exception does not pass through TensorRT, which is told to stop; it is raised here, and the next build works."""
    seen: list[int] = []

    def stop(stage: str, done: int, total: int) -> None:
        seen.append(done)
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(request8, stop)
    assert max(seen) < 60, "it went on after that"
    assert build_plan(request8).content


def test_the_child_builds_it(request8: PlanRequest, tmp_path: Path) -> None:
    """Library and targets reach the child; the plan, the listing and the progress come back."""
    steps: list[int] = []
    request = replace(request8, targets=("SM86",))
    built = build_in_child(request, tmp_path / "plan", lambda stage, done, total: steps.append(done))
    assert (tmp_path / "plan").stat().st_size > 100_000
    assert len(convolutions(parse_layers(json.loads(built.layers or "")).layers)) == 9
    assert steps[-1] == 100
    with pytest.raises(ConfigError, match="for the target SM90"):
        build_in_child(replace(request, targets=("SM90",)), tmp_path / "none")


def test_a_build_ends_with_its_caller(tmp_path: Path) -> None:
    """The caller is killed while ResNet-18 is built: the child notices, cancels the build and writes no plan."""
    onnx.save(graph_of("resnet18", "int8"), tmp_path / "model.onnx")
    program = f"""
import sys, os
sys.path[:] = {sys.path!r}
from pathlib import Path
from rtxplans import request_for
from edge_resnet.compiler.tensorrt.child import build_in_child
request = request_for(Path({str(tmp_path / "model.onnx")!r}), "resnet18", "int8")
def report(stage, done, total):
    children = Path(f"/proc/self/task/{{os.getpid()}}/children").read_text()
    print(done, children, flush=True)
build_in_child(request, Path({str(tmp_path / "plan")!r}), report)
"""
    with started([sys.executable, "-c", program], stdout=-1, text=True) as caller:
        assert caller.stdout is not None
        child = int(caller.stdout.readline().split()[1])
        os.kill(caller.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.05)
    assert not _runs(child)
    assert not (tmp_path / "plan").exists()


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
