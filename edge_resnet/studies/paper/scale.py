"""The paper's training recipe, and every difference of a training from it. Trains nothing."""

from __future__ import annotations

from collections.abc import Sequence

from edge_resnet.core.records import FAMILIES, Family
from edge_resnet.network.training import TrainOptions
from edge_resnet.studies.paper.request import ExperimentRequest
from edge_resnet.studies.paper.result import SetupDifference
from edge_resnet.studies.paper.training import TrainingOutcome

__all__ = ["PAPER_EPOCHS", "paper_options", "setup_differences"]

#: 64k iterations of 128 from 50,000 images (section 4.2); 60 · 10⁴ of 256 from 1.28 million (section 3.4).
PAPER_EPOCHS = {"cifar": 164, "imagenet": 120}
_IMAGES = {"cifar": (50_000, 10_000), "imagenet": (1_281_167, 50_000)}
_NAMES = {"cifar": "CIFAR-10", "imagenet": "ImageNet 2012"}
_AUGMENTATIONS = {
    "none": "none",
    "shift": "padded by 4, cropped at random",
    "cifar": "padded by 4, cropped at random, mirrored",
    "imagenet": "a crop of random scale and aspect ratio, mirrored",
    "scales": "short side between 256 and 480, cropped at random, mirrored",
}


def paper_options(family: Family) -> TrainOptions:
    """The paper's recipe (sections 3.4 and 4.2), except for its colour augmentation on ImageNet."""
    if family == "cifar":
        return TrainOptions(epochs=PAPER_EPOCHS["cifar"], batch=128, schedule="paper-cifar", nesterov=False, augment="cifar")
    return TrainOptions(epochs=PAPER_EPOCHS["imagenet"], batch=256, schedule="paper-imagenet", nesterov=False, augment="scales")


def setup_differences(
    request: ExperimentRequest, training: TrainingOutcome, depths: Sequence[int]
) -> tuple[SetupDifference, ...]:
    """Every difference from the paper's recipe. ``depths``: those of the paper's experiment."""
    options = request.training or paper_options(request.family)
    paper = paper_options(request.family)
    train, test = _IMAGES[request.family]
    name, family = _NAMES[request.family], FAMILIES[request.family]
    data = training.data
    test_count = 0 if data.test is None else len(data.test)
    ours = sorted({network.spec.depth for network in training.networks if network.finished})
    classes = training.networks[0].spec.classes
    # The number counts and not the name of the set: a folder of CIFAR-10 may have any name.
    found = [
        ("training images", f"{train:,} of {name}", f"{len(data.train):,} of {data.train.name}", len(data.train) != train),
        ("test images", f"{test:,} of {name}", f"{test_count:,}", test_count != test),
        ("classes", str(family.classes), str(classes), classes != family.classes),
        ("epochs", str(paper.epochs), f"{options.epochs:g}", options.epochs != paper.epochs),
        ("steps", f"{round(paper.epochs * train / paper.batch):,}", f"{_steps(training):,}", options.epochs != paper.epochs),
        ("depths", _listed(depths), _listed(ours), list(depths) != ours),
        (
            "learning rate",
            f"{paper.rate}, {paper.schedule}",
            f"{options.rate}, {_schedule(options)}",
            _rate_differs(options, paper),
        ),
        ("batch", str(paper.batch), str(options.batch), options.batch != paper.batch),
        ("momentum", _momentum(paper), _momentum(options), _momentum(paper) != _momentum(options)),
        ("augmentation", _AUGMENTATIONS[paper.augment], _AUGMENTATIONS[options.augment], options.augment != paper.augment),
        ("arithmetic", "float32", options.precision, options.precision != "fp32"),
        ("input", "the mean of each pixel is subtracted", "mean and deviation of each channel", True),
        ("side of the image, pixels", *_sides(request), _sides(request)[0] != _sides(request)[1]),
        ("runs", "the best of five for 110 layers", f"one, seed {request.seed}", 110 in depths),
    ]
    return tuple(SetupDifference(what, there, here) for what, there, here, differs in found if differs)


def _schedule(options: TrainOptions) -> str:
    """The schedule's name; the paper's are defined by shares of the training and are scaled to its length."""
    return options.schedule if not options.schedule.startswith("paper") else f"{options.schedule}, shortened with the epochs"


def _rate_differs(options: TrainOptions, paper: TrainOptions) -> bool:
    return (options.rate, options.schedule, options.epochs) != (paper.rate, paper.schedule, paper.epochs)


def _momentum(options: TrainOptions) -> str:
    return f"{options.momentum:g}{', Nesterov' if options.nesterov else ''}"


def _sides(request: ExperimentRequest) -> tuple[str, str]:
    return str(FAMILIES[request.family].input_size), str(request.side)


def _steps(training: TrainingOutcome) -> int:
    return max(network.records[-1].step for network in training.networks)


def _listed(depths: Sequence[int]) -> str:
    return ", ".join(map(str, depths)) or "none finished"
