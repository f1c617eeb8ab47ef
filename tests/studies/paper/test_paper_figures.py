"""The paper's numbers agree with each other and with those that other modules print."""

from __future__ import annotations

from edge_resnet.network.zoo import PAPER_CIFAR_MPARAMS, PAPER_GMACS
from edge_resnet.studies.paper import EXPERIMENTS, figures
from edge_resnet.studies.paper.figures import (
    CIFAR_ERROR,
    CIFAR_MPARAMS,
    CLAIMS,
    IMAGENET_GFLOPS,
    MULTISCALE_ERROR,
    ONE_CROP_ERROR,
    SOURCES,
    TEN_CROP_ERROR,
    TWIN_ERROR,
)


def test_one_set_of_numbers() -> None:
    """Tables 1 and 6 have the same values here and in `edge-resnet models`."""
    assert dict(IMAGENET_GFLOPS) == PAPER_GMACS
    assert dict(CIFAR_MPARAMS) == PAPER_CIFAR_MPARAMS


def test_each_number_has_its_place() -> None:
    """SOURCES gives a table or section for every mapping of numbers, and for nothing else."""
    numbers = {name for name in figures.__all__ if name.isupper()} - {"CLAIMS", "SOURCES"}
    assert set(SOURCES) == numbers


def test_each_experiment_has_a_claim() -> None:
    """Every experiment has the paper's claim, with a section or table."""
    assert set(CLAIMS) == set(EXPERIMENTS)
    assert all(any(place in claim for place in ("section", "table")) for claim in CLAIMS.values())


def test_tables_two_and_three_agree() -> None:
    """The networks of 34 layers have the same error in both tables; the residual one has option A."""
    assert TWIN_ERROR["plain-34"].top1 == TEN_CROP_ERROR["plain-34"].top1
    assert TWIN_ERROR["ResNet-34"].top1 == TEN_CROP_ERROR["ResNet-34 A"].top1


def test_the_papers_story_is_in_its_numbers() -> None:
    """Plain networks degrade, residual ones do not; A to C get better; more views have lower errors; 1202 layers overfit."""
    assert TWIN_ERROR["plain-34"].top1 > TWIN_ERROR["plain-18"].top1
    assert TWIN_ERROR["ResNet-34"].top1 < TWIN_ERROR["ResNet-18"].top1
    a, b, c = (TEN_CROP_ERROR[f"ResNet-34 {option}"].top1 for option in "ABC")
    assert a > b > c
    for network in ("ResNet-50", "ResNet-101", "ResNet-152"):
        assert ONE_CROP_ERROR[network].top1 > TEN_CROP_ERROR[network].top1 > MULTISCALE_ERROR[network].top1
    errors = [CIFAR_ERROR[depth].top1 for depth in (20, 32, 44, 56, 110)]
    assert errors == sorted(errors, reverse=True)
    assert CIFAR_ERROR[1202].top1 > CIFAR_ERROR[110].top1


def test_texts_are_as_printed() -> None:
    """One error, one with the spread of five runs, and one with top-1 and top-5."""
    assert CIFAR_ERROR[20].text == "8.75"
    assert CIFAR_ERROR[110].text == "6.43 (6.61±0.16)"
    assert TEN_CROP_ERROR["ResNet-34 C"].text == "24.19 / 7.40"
