"""The measured table against the paper, torchvision's documentation and hand calculations. Uses no weights."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edge_resnet.core.errors import WeightsError
from edge_resnet.core.records import ModelSpec, Shortcut
from edge_resnet.network.published import torchvision_weights
from edge_resnet.network.resnet import build_network
from edge_resnet.network.zoo import CIFAR10_NAMES, NetworkFacts, class_names, known_networks, measure

#: He et al. 2015, table 1: depth → multiply-adds in 10⁹.
TABLE_1 = {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}
#: He et al. 2015, table 6: depth → parameters in 10⁶ as printed.
TABLE_6 = {20: "0.27", 32: "0.46", 44: "0.66", 56: "0.85", 110: "1.7", 1202: "19.4"}
#: torchvision's documentation of resnet18 … resnet152.
TORCHVISION = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
#: ... and its `_ops`, multiply-adds in 10⁹ with the stride on the 3x3.
TORCHVISION_GMACS = {18: 1.814, 34: 3.664, 50: 4.089, 101: 7.801, 152: 11.514}


@pytest.fixture(scope="module")
def known() -> list[NetworkFacts]:
    """Every network that has a name, measured once: those of the table first."""
    return known_networks()


@pytest.fixture(scope="module")
def table(known: list[NetworkFacts]) -> list[NetworkFacts]:
    """The paper's networks alone."""
    return known[: len(TABLE_1) + len(TABLE_6)]


def test_the_table_is_quick_and_needs_no_compiler() -> None:
    """The paper's eleven networks, 1,202 layers included, take less than six seconds of a processor, the best of two; listing
    every network leaves torch's compiler and torchvision alone, whose imports take longer than the table."""
    code = (
        "import sys, time\nfrom edge_resnet.network.zoo import known_networks, paper_table\nstarted = time.process_time()\n"
        "print(len(paper_table()), time.process_time() - started)\nknown_networks()\n"
        "print([name for name in ('torch._dynamo', 'torchvision') if name in sys.modules])\n"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        table, loaded = done.stdout.splitlines()
        assert (table.split()[0], loaded) == ("11", "[]")
        if float(table.split()[1]) < 6:
            return
    pytest.fail(f"the table took {table.split()[1]} s")


def test_table_lists_the_papers_networks(table: list[NetworkFacts]) -> None:
    """ImageNet's five with option B at 224 pixels, then CIFAR's six with option A at 32, each with its layers and block."""
    rows = [(f.spec.family, f.spec.depth, f.spec.shortcut, f.spec.classes, f.spec.input_size) for f in table]
    assert rows[:5] == [("imagenet", depth, "B", 1000, 224) for depth in TABLE_1]
    assert rows[5:] == [("cifar", depth, "A", 10, 32) for depth in TABLE_6]
    assert all(facts.layers == facts.spec.depth for facts in table)
    assert [facts.block for facts in table] == ["basic"] * 2 + ["bottleneck"] * 3 + ["basic"] * 6
    assert [facts.paper_figure for facts in table] == [*TABLE_1.values(), *map(float, TABLE_6.values())]


def test_multiply_adds_are_the_papers(table: list[NetworkFacts]) -> None:
    """With the paper's stride, multiply-adds agree with table 1 within 2 %."""
    for facts in table[:5]:
        assert facts.paper_stride_multiply_adds / 1e9 == pytest.approx(TABLE_1[facts.spec.depth], rel=0.02)


def test_multiply_adds_are_torchvisions(table: list[NetworkFacts]) -> None:
    """With torchvision's stride, they agree with its documentation to the last printed digit."""
    assert {facts.spec.depth: round(facts.multiply_adds / 1e9, 3) for facts in table[:5]} == TORCHVISION_GMACS


def test_the_stride_costs_only_bottlenecks(table: list[NetworkFacts]) -> None:
    """The paper's stride changes nothing without bottlenecks, and saves multiply-adds with them."""
    for facts in table:
        if facts.block == "basic":
            assert facts.paper_stride_multiply_adds == facts.multiply_adds
        else:
            assert facts.paper_stride_multiply_adds < facts.multiply_adds


def test_parameters_are_the_known_ones(table: list[NetworkFacts]) -> None:
    """ImageNet's counts are exactly torchvision's; CIFAR's are those of table 6 to its printed digits."""
    assert {facts.spec.depth: facts.parameters for facts in table[:5]} == TORCHVISION
    for facts in table[5:]:
        printed = TABLE_6[facts.spec.depth]
        assert f"{facts.parameters / 1e6:.{len(printed.split('.')[1])}f}" == printed


@pytest.mark.parametrize(
    ("shortcut", "plain", "projections"),
    [
        ("A", False, 0),
        ("B", False, 32 * 16 * 4 * 4 + 64 * 32 * 2 * 2),
        ("C", False, 16 * 16 * 8 * 8 + 32 * 16 * 4 * 4 + 64 * 32 * 2 * 2),
        ("B", True, 0),
    ],
)
def test_a_tiny_network_counted_by_hand(shortcut: Shortcut, plain: bool, projections: int) -> None:
    """Eight layers on an 8x8 image: every convolution's k * k * in * out * side², and the classifier's in * out."""
    stem = 9 * 3 * 16 * 8 * 8
    stage1 = 2 * 9 * 16 * 16 * 8 * 8
    stage2 = 9 * 16 * 32 * 4 * 4 + 9 * 32 * 32 * 4 * 4
    stage3 = 9 * 32 * 64 * 2 * 2 + 9 * 64 * 64 * 2 * 2
    expected = stem + stage1 + stage2 + stage3 + 64 * 10 + projections
    assert measure(ModelSpec("cifar", 8, shortcut, plain, classes=10, input_size=8)).multiply_adds == expected


def test_parameters_counted_by_hand() -> None:
    """Filters, two numbers per batch-normalised channel, and the classifier with its bias."""
    filters = 9 * (3 * 16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64)
    norms = 2 * (16 + 2 * 16 + 2 * 32 + 2 * 64)
    assert measure(ModelSpec("cifar", 8, "A", classes=10, input_size=8)).parameters == filters + norms + 64 * 10 + 10


@pytest.mark.parametrize("stride_on_first", [False, True])
@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("imagenet", 50, "C", input_size=97),
        ModelSpec("imagenet", 18, "B", classes=7, input_size=64),
        ModelSpec("cifar", 14, "B", classes=10, input_size=33),
        ModelSpec("cifar", 14, "A", plain=True, classes=10, input_size=20),
    ],
    ids=lambda spec: spec.name,
)
def test_torchs_own_counter_agrees(spec: ModelSpec, stride_on_first: bool) -> None:
    """Two floating-point operations per multiply-add: torch's counter gives twice ours, and the parameters are the network's."""
    with torch.device("meta"):
        network = build_network(spec, stride_on_first=stride_on_first).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, spec.input_size, spec.input_size))
    size = measure(spec, stride_on_first=stride_on_first)
    assert counter.get_total_flops() == 2 * size.multiply_adds
    assert size.parameters == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("depth", TABLE_1)
def test_imagenet_has_a_thousand_names(depth: int) -> None:
    """Every depth has the same 1,000 names in torchvision's order: 954 is the banana, 296 the ice bear."""
    names = class_names(ModelSpec("imagenet", depth))
    assert names is not None
    assert (len(names), names[954], names[296]) == (1000, "banana", "ice bear")
    assert names == class_names(ModelSpec("imagenet", 50))


def test_names_follow_the_head() -> None:
    """CIFAR's ten names for ten classes; None for a head of any other width, and for CIFAR's width on ImageNet."""
    assert class_names(ModelSpec("cifar", 20, "A", classes=10)) == CIFAR10_NAMES
    assert (len(set(CIFAR10_NAMES)), CIFAR10_NAMES[3], CIFAR10_NAMES[9]) == (10, "cat", "truck")
    assert class_names(ModelSpec("cifar", 20, "A", classes=100)) is None
    assert class_names(ModelSpec("cifar", 20, "A", classes=1000)) is None
    assert class_names(ModelSpec("imagenet", 50, classes=10)) is None
    assert class_names(ModelSpec("imagenet", 50, classes=1001)) is None


def test_names_are_in_the_order_of_the_real_labels(real_data: Path) -> None:
    """The class indices of the sample images have the names in their list."""
    import csv

    names = class_names(ModelSpec("imagenet", 18)) or ()
    with (real_data / "imagenet" / "sample500.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    same = [names[int(row["class_index"])].lower() in row["name"].lower().replace("_", " ") for row in rows]
    assert len(rows) == 500
    assert sum(same) >= 480


def test_successors_beside_torchvisions_figures(known: list[NetworkFacts]) -> None:
    """Parameters and multiply-adds of ResNeXt and Wide ResNet are those that torchvision publishes."""
    models = pytest.importorskip("torchvision.models")
    facts = {found.spec.name: found for found in known}
    assert len(facts) == 27
    for name in ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"):
        meta = models.get_model_weights(name)["IMAGENET1K_V1"].meta
        assert facts[name].parameters == meta["num_params"]
        assert facts[name].multiply_adds / 1e9 == pytest.approx(meta["_ops"], abs=0.001)


def test_the_published_accuracies_are_torchvisions(known: list[NetworkFacts]) -> None:
    """For every network that can be built, both versions of its weights, and none that torchvision does not have."""
    pytest.importorskip("torchvision")
    for facts in known:
        published = {}
        for version in ("v1", "v2"):
            with suppress(WeightsError):
                published[version] = torchvision_weights(facts.spec, version).meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert facts.published_top1 == published, facts.spec.name
