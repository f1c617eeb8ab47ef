"""Networks by name: what a name means, and what no network is called."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.modelnames import NAMED, spec_named
from edge_resnet.core.records import FAMILIES, Layout, ModelSpec, default_spec


@pytest.mark.parametrize("name", NAMED)
def test_a_name_survives_its_spec(name: str) -> None:
    """Every listed name is that of the network that it gives."""
    assert spec_named(name).name == name


def test_every_network_of_the_paper_has_a_name() -> None:
    """All depths of all families, with and without shortcuts, are found by the names that they give themselves."""
    for family, usual in FAMILIES.items():
        for depth in usual.depths:
            for plain in (False, True):
                spec = default_spec(family, depth, plain=plain)
                assert spec_named(spec.name) == spec


def test_what_the_parts_of_a_name_mean() -> None:
    """Groups, width, timm's letters and the family stand in the name."""
    assert spec_named("resnext101_64x4d").layout == Layout(64, 4)
    assert spec_named("wide_resnet50_2").layout == Layout(1, 128)
    assert spec_named("resnet50d").layout == Layout(stem=(32, 32, 64), avg_down=True)
    assert spec_named("resnet50t").layout == Layout(stem=(24, 32, 64), avg_down=True)
    small = spec_named("ResNet18-small")
    assert (small.family, small.classes, small.input_size, small.shortcut) == ("small", 10, 32, "B")
    assert spec_named("resnet18-small-pooled").layout.pooled


WRONG = ("", "resnet", "resnet51", "resnet50x", "resnext50", "wide_resnet50", "wide_resnet18_2", "resnext18_32x4d", "vit_b_16")


@pytest.mark.parametrize("name", [*WRONG, "resnet50_2", "resnet20", "resnet20d-cifar", "resnet18d-small", "plain50d"])
def test_a_name_that_no_network_has(name: str) -> None:
    """Unknown names, and letters or groups where the network cannot have them, are refused."""
    with pytest.raises(ConfigError):
        spec_named(name)


def test_layouts_without_a_letter_are_told_apart() -> None:
    """Networks that compute different things have different names, also where the literature has none."""
    layouts = [
        Layout(),
        Layout(avg_down=True),
        Layout(stem=(32, 64, 64)),
        Layout(stem=(32, 64, 64), avg_down=True),
        Layout(2, 64),
        Layout(1, 96),
    ]
    names = {replace(ModelSpec(), layout=layout).name for layout in layouts}
    assert len(names) == len(layouts)
