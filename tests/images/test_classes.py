"""Class folders meet a network's labels: what matches is never overruled, what does not is named."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.errors import DataError
from edge_resnet.images.classes import class_indices, imagenet_wordnet_ids, same_classes

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HERE = Path("set")


@pytest.fixture(scope="module")
def imagenet() -> tuple[str, ...]:
    """ImageNet's labels as torchvision has them, without ids."""
    models = pytest.importorskip("torchvision.models")
    return tuple(models.ResNet18_Weights.DEFAULT.meta["categories"])


@pytest.mark.parametrize("spelled", [str.upper, "00 {}".format, "7_{}".format, "3. {}".format, "{} ".format])
def test_the_spellings_of_a_name(spelled: object) -> None:
    """Case, a number before the name and white space do not hide a label; the name counts, not the number."""
    names = {spelled(name): name for name in CIFAR10}  # type: ignore[operator]
    assert class_indices(HERE, list(names), CIFAR10) == {folder: CIFAR10.index(name) for folder, name in names.items()}


@given(st.permutations(CIFAR10), st.integers(1, 9), st.lists(st.text("pqr", min_size=1, max_size=3), min_size=1, unique=True))
def test_a_name_that_matches_is_never_overruled(order: list[str], count: int, strangers: list[str]) -> None:
    """Known folders keep their class, and beside them every unknown one is an error that names it and the labels left."""
    known = order[:count]
    assert class_indices(HERE, known, CIFAR10) == {name: CIFAR10.index(name) for name in known}
    with pytest.raises(DataError, match="none of the network's labels") as caught:
        class_indices(HERE, [*known, *strangers], CIFAR10)
    assert strangers[0] in caught.value.message
    assert "labels without a folder" in caught.value.hint


def test_the_names_of_a_tutorial_are_refused_by_name() -> None:
    """Eight of ten names match: plane and car are named, and so are the labels that they could be."""
    names = ["bird", "car", "cat", "deer", "dog", "frog", "horse", "plane", "ship", "truck"]
    with pytest.raises(DataError, match="others match: car, plane") as caught:
        class_indices(HERE, names, CIFAR10)
    assert caught.value.hint.endswith("labels without a folder: airplane, automobile")


def test_an_order_is_taken_only_where_no_name_matches_and_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Ten folders for ten labels, of which none is one, are numbered as listed, with a warning that shows how."""
    names = [f"kind {letter}" for letter in "abcdefghij"]
    with caplog.at_level(logging.WARNING):
        assert class_indices(HERE, names, CIFAR10) == {name: index for index, name in enumerate(names)}
    assert "kind a is airplane, …, kind j is truck" in caplog.text
    with pytest.raises(DataError, match="matches none of the network's 10 labels"):
        class_indices(HERE, names[:9], CIFAR10)


def test_numbers_are_indices_and_counting_from_one_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """Folders 0 to 9 are silent; 1 to 10 are beyond the network; 1 to 9 are possible, and said."""
    assert class_indices(HERE, ["0", "07", "3"], CIFAR10) == {"0": 0, "07": 7, "3": 3}
    assert not caplog.records
    with pytest.raises(DataError, match=r"10 is no class of the network, which knows 0\.\.9") as caught:
        class_indices(HERE, [str(number) for number in range(1, 11)], CIFAR10)
    assert "from 0" in caught.value.hint
    class_indices(HERE, [str(number) for number in range(1, 10)], CIFAR10)
    assert "there is no folder 0" in caplog.text


def test_two_folders_of_one_class_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """Both spellings count, with a warning that names them."""
    assert class_indices(HERE, ["Cat", "cat"], CIFAR10) == {"Cat": 3, "cat": 3}
    assert "the same class, cat: Cat, cat" in caplog.text


def test_wordnet_ids_are_known_for_imagenets_labels(imagenet: tuple[str, ...]) -> None:
    """Ids alone, ids before a name and names find their class though the labels have no ids and other classes are missing."""
    ids = imagenet_wordnet_ids()
    assert (len(ids), list(ids)) == (1000, sorted(ids))
    names = {"n01440764": 0, "n02979186_cassette_player": 482, "goldfish": 1, ids[999]: 999}
    assert class_indices(HERE, list(names), imagenet) == names
    with pytest.raises(DataError, match="n00000001"):
        class_indices(HERE, ["n01440764", "n00000001"], imagenet)


def test_every_one_of_imagenets_classes_is_found_by_its_id(imagenet: tuple[str, ...], real_data: Path) -> None:
    """Classes that share a name, such as the two cranes, have ids of their own; the table is the one of the data set."""
    assert imagenet_wordnet_ids() == tuple((real_data / "labels" / "imagenet_synsets.txt").read_text().split())
    ids = imagenet_wordnet_ids()
    assert class_indices(HERE, ids, imagenet) == {wordnet_id: index for index, wordnet_id in enumerate(ids)}


def test_labels_with_ids_are_known_by_their_names(imagenet: tuple[str, ...]) -> None:
    """The lines of synset_words.txt match folders by id, by name and by any synonym that one class alone has."""
    labels = ["n01440764 tench, Tinca tinca", "n01484850 great white shark, white shark", "n02012849 crane", "n03126707 crane"]
    names = {"tench": 0, "white_shark": 1, "Tinca_tinca": 0, "n03126707": 3}
    assert class_indices(HERE, list(names), labels) == names
    with pytest.raises(DataError, match="crane"):
        class_indices(HERE, ["tench", "crane"], labels)


@pytest.mark.parametrize(
    ("names", "labels", "same"),
    [
        (CIFAR10, CIFAR10, True),
        ([name.upper() for name in CIFAR10], CIFAR10, True),
        (CIFAR10[::-1], CIFAR10, False),
        (["plane", *CIFAR10[1:]], CIFAR10, False),
        (CIFAR10[:9], CIFAR10, False),
        (["a", "b"], ["class 0", "class 1"], True),
        (["a", "b"], ["class 0", "class 1", "class 2"], False),
        (["crane", "crane"], ["crane", "crane"], True),
    ],
)
def test_which_classes_are_the_same(names: list[str], labels: list[str], same: bool) -> None:
    """The same number in the same order, in any spelling; labels that name nothing fit any names."""
    assert same_classes(names, labels) == same


def test_accents_may_be_composed_or_not() -> None:
    """macOS spells the é of a file's name as e and an accent; a label mostly has one character."""
    composed, apart = "caf\u00e9 noir", "cafe\u0301 noir"
    assert class_indices(Path("data"), [apart, "dog"], ["dog", composed]) == {apart: 1, "dog": 0}
    assert class_indices(Path("data"), [composed, "dog"], ["dog", apart]) == {composed: 1, "dog": 0}
    assert same_classes([apart.upper(), "dog"], [composed, "dog"])
