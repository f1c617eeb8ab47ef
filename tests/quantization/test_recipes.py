"""recipes.py: shipped recipes, the user's own files, invalid files, and the user's overrides."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import CalibMethod, Correction, Family, QuantRecipe
from edge_resnet.images.datasets import NAMES
from edge_resnet.quantization.recipes import RecipeOverrides, available_recipes, load_recipe, overridden, recipe_for

REPO = Path(__file__).resolve().parents[2]
SHIPPED = ("camera", "cifar10", "digits", "imagenet", "own")

recipes = st.builds(
    QuantRecipe,
    method=st.sampled_from(get_args(CalibMethod)),
    images=st.integers(1, 10**6),
    seed=st.integers(0, 2**31),
    percentile=st.floats(50, 100, exclude_min=True),
    keep_high_precision=st.lists(st.text("abc/._01 ", max_size=9), max_size=3).map(tuple),
    correction=st.sampled_from(get_args(Correction)),
    epochs=st.integers(1, 1000),
    exact_input=st.booleans(),
    stem_share=st.floats(0, 100),
)


README = (REPO / "calibration" / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of a user's own recipe."""
    return tmp_path / "mine.toml"


def test_the_shipped_files_are_the_recipes() -> None:
    """Each file in calibration/recipes is a recipe, and there are no others."""
    files = sorted(path.stem for path in (REPO / "calibration" / "recipes").iterdir())
    assert tuple(files) == SHIPPED == tuple(named.name for named in available_recipes())


@pytest.mark.parametrize("name", SHIPPED)
def test_the_readme_says_what_the_recipe_says(name: str) -> None:
    """The row of a recipe carries its data, its method, its correction and its number of images."""
    row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
    _, _, _, data, method, correction, images, _ = (cell.strip() for cell in row.split("|"))
    named = load_recipe(name)
    assert data.startswith(f"`{named.data}`" if named.data else "none")
    assert (method, correction, int(images)) == (named.recipe.method, named.recipe.correction, named.recipe.images)


def test_the_example_in_the_readme_is_a_recipe(file: Path) -> None:
    """The file shown in the README is valid and shows every key."""
    (example,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    file.write_text(example)
    assert load_recipe(str(file)).recipe.images == 256
    keys = {line.split(" =")[0] for line in example.splitlines()}
    assert keys == {"data", "description", *(field.name for field in dataclasses.fields(QuantRecipe))}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_recipes_can_be_followed(name: str) -> None:
    """Each has a description, names data that can be opened or leaves it to the user, and asks for enough images."""
    named = load_recipe(name)
    assert named.name == name
    assert named.data in (*NAMES, None)
    assert named.description
    assert named.recipe.images >= 256
    assert named.recipe.keep_high_precision == ()


@pytest.mark.parametrize("family", get_args(Family))
def test_every_family_has_a_recipe_with_data(family: Family) -> None:
    """A build without --calib-data and --calib-recipe finds both a recipe and images."""
    assert load_recipe(recipe_for(family)).data in NAMES


def test_the_input_is_exact_only_where_the_network_sees_whole_images() -> None:
    """Images of 32x32 pixels are an exact input, photographs are not."""
    assert {name for name in SHIPPED if load_recipe(name).recipe.exact_input} == {"cifar10", "digits"}


@given(recipe=recipes)
def test_every_recipe_can_be_written_and_read(recipe: QuantRecipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file with all fields of a recipe gives that recipe."""
    path = tmp_path_factory.mktemp("recipe") / "any.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in dataclasses.asdict(recipe).items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    named = load_recipe(str(path))
    assert (named.name, named.data, named.recipe) == ("any", None, recipe)
    assert hash(named)


def test_what_a_file_leaves_out_takes_the_default(file: Path) -> None:
    """Only the given keys differ from the record's defaults; a whole number is valid where a number is needed."""
    file.write_text('data = "digits"\nmethod = "percentile"\npercentile = 99\nkeep_high_precision = ["conv1", "fc"]\n')
    named = load_recipe(str(file))
    assert named.data == "digits"
    assert named.recipe == QuantRecipe(method="percentile", percentile=99.0, keep_high_precision=("conv1", "fc"))
    assert isinstance(named.recipe.percentile, float)


def test_an_empty_file_is_the_default_recipe(file: Path) -> None:
    """An empty file changes nothing."""
    file.write_text("# nothing yet\n")
    assert load_recipe(str(file)).recipe == QuantRecipe()


def test_data_beside_the_file_is_found_from_anywhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder beside the recipe takes precedence over one in the working folder; a name and an absolute path are unchanged."""
    images = file.parent / "images"
    images.mkdir()
    monkeypatch.chdir("/")
    for data, found in (("images", images), (str(images), images), ("digits", "digits"), ("elsewhere", "elsewhere")):
        file.write_text(f"data = {json.dumps(data)}\n")
        assert load_recipe(str(file)).data == str(found)


def test_an_editor_may_leave_its_mark(file: Path) -> None:
    """A byte order mark and Windows line ends are ignored."""
    file.write_bytes(b'\xef\xbb\xbfmethod = "max"\r\nimages = 7\r\n')
    assert load_recipe(str(file)).recipe == QuantRecipe(method="max", images=7)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('methods = "max"', "unknown key methods", "did you mean method?"),
        ('[recipe]\nmethod = "max"', "unknown key recipe", "keys are correction, data, description"),
        ('method = "mean"', 'method takes one of auto, max, percentile, mse, entropy, not "mean"', "method = "),
        ('correction = "learnt"', 'correction takes one of none, bias, learned, not "learnt"', "correction = "),
        ("images = true", "images takes a whole number, not true", "images = 512"),
        ("images = 2.0", "images takes a whole number, not 2.0", "images = 512"),
        ('images = "512"', 'images takes a whole number, not "512"', "images = 512"),
        ("images = 0", "at least one image", "128 to 512"),
        ("seed = -1", "a seed is 0 or more, not -1", "whole number"),
        ('percentile = "99.9"', 'percentile takes a number, not "99.9"', "percentile = 99.999"),
        ("percentile = false", "percentile takes a number, not false", "percentile = 99.999"),
        ("percentile = -99.9", "percentile must lie in", "99.999"),
        ("percentile = 0.9999", "percentile must lie in", "99.999"),
        ("percentile = 100.1", "percentile must lie in", "99.999"),
        ("percentile = nan", "percentile must lie in", "99.999"),
        ("epochs = 0", "epochs must lie in", "10"),
        ("exact_input = 1", "exact_input takes true or false, not 1", "exact_input = false"),
        ('keep_high_precision = "fc"', 'keep_high_precision takes a list of texts, not "fc"', '["conv1"]'),
        ('keep_high_precision = ["fc", 1]', "keep_high_precision takes a list of texts", '["conv1"]'),
        ("data = 3", "data takes a text, not 3", "images"),
        ('data = " "', "data is empty", "leave the line out"),
        ("description = 1979-05-27", "description takes a text", "what it is for"),
        ("images =", "is not TOML", "method = "),
        ("images = 1\nimages = 2", "is not TOML", "method = "),
        (b"\xff\xfe", "is not TOML", "method = "),
        pytest.param("images = " + "9" * 5000, "is not TOML", "method = ", id="a number of 5,000 digits"),
        pytest.param("images = " + "[" * 5000, "is not TOML", "method = ", id="nested 5,000 times"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(file: Path, text: str | bytes, message: str, hint: str) -> None:
    """The error names the file, the key and the valid choices; it is one line with a hint, exit 2."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(file))
    assert caught.value.message.startswith(f"recipe {file}")
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("name", "message", "meant"),
    [
        ("imagnet", "no recipe is called 'imagnet'", "did you mean imagenet?"),
        ("cifar", "no recipe is called 'cifar'", "did you mean cifar10?"),
        ("CIFAR10", "no recipe is called 'CIFAR10'", "did you mean cifar10?"),
        ("", "no recipe is called ''", "recipes are camera, cifar10, digits, imagenet"),
        ("../secrets", "no recipe is called '../secrets'", "ends in .toml"),
        ("cifr10.toml", "recipe cifr10.toml cannot be read: No such file", "did you mean cifar10?"),
        ("nowhere/x.toml", "No such file", "recipes are camera"),
        (".toml", "no recipe is called '.toml'", "recipes are camera"),
    ],
)
def test_names_that_no_recipe_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str, meant: str) -> None:
    """An unknown name and a missing file list the recipes, the most similar first."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_recipe(name)
    assert message in caught.value.message
    assert meant in caught.value.hint


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    """A folder whose name ends in .toml is refused in one line."""
    (tmp_path / "x.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(str(tmp_path / "x.toml"))


@given(recipe=recipes)
def test_no_overrides_change_nothing(recipe: QuantRecipe) -> None:
    """Without overrides the recipe is unchanged."""
    assert overridden(recipe, RecipeOverrides()) == recipe


@pytest.mark.parametrize(
    ("overrides", "result"),
    [
        ({"method": "max"}, {"method": "max"}),
        ({"images": 9, "seed": 3}, {"images": 9, "seed": 3}),
        ({"correction": "none"}, {"correction": "none"}),
        ({"percentile": 99.9}, {"percentile": 99.9, "method": "percentile"}),
        ({"percentile": 99.9, "method": "percentile"}, {"percentile": 99.9, "method": "percentile"}),
        ({"seed": 0}, {"seed": 0}),
    ],
)
def test_overrides_replace_the_recipes_values(overrides: dict[str, Any], result: dict[str, Any]) -> None:
    """An override replaces the recipe's value, zero included, and nothing else; a percentile implies its method."""
    base = QuantRecipe(method="mse", images=512, seed=7, correction="learned", epochs=3, exact_input=True)
    assert overridden(base, RecipeOverrides(**overrides)) == dataclasses.replace(base, **result)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"percentile": 99.9, "method": "max"}, "--percentile has no meaning with --calib-method max"),
        ({"percentile": 99.9, "method": "auto"}, "--percentile has no meaning with --calib-method auto"),
        ({"percentile": 0.999}, "percentile must lie in"),
        ({"images": 0}, "at least one image"),
        ({"seed": -1}, "a seed is 0 or more"),
    ],
)
def test_invalid_overrides_are_refused(overrides: dict[str, Any], message: str) -> None:
    """What is invalid in a recipe is invalid as an override."""
    with pytest.raises(ConfigError, match=message) as caught:
        overridden(QuantRecipe(), RecipeOverrides(**overrides))
    assert caught.value.hint
