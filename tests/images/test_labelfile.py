"""Label files: every usual form gives the same names in the same order, and what is doubtful is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_resnet.core.errors import DataError
from edge_resnet.images.classes import imagenet_wordnet_ids
from edge_resnet.images.labelfile import MAX_LABEL_BYTES, read_labels

NAMES = ("tench, Tinca tinca", "jack-o'-lantern", 'so called "great" shark', "[bold]", "café: noir", "3")


def read(folder: Path, content: str | bytes) -> tuple[str, ...]:
    path = folder / "labels.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_labels(path)


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(NAMES),
        "\ufeff" + "\n".join(NAMES),
        "\r\n".join(NAMES) + "\r\n\r\n",
        "\r".join(NAMES),
        "\n\n  ".join(NAMES),
        "\n".join(NAMES).encode("utf-16"),
        "\n".join(NAMES).encode("utf-16-be").join([b"\xfe\xff", b""]),
        json.dumps(NAMES),
        json.dumps(NAMES, indent=2),
        json.dumps({str(index): name for index, name in enumerate(NAMES)}),
        json.dumps({str(index): name for index, name in reversed(list(enumerate(NAMES)))}, indent=0),
        json.dumps({name: index for index, name in enumerate(NAMES)}),
        repr(dict(enumerate(NAMES))),
        "{" + ",\n ".join(f"{index}: {name!r}" for index, name in enumerate(NAMES)) + "}",
        "{\n" + "".join(f"{index}: {name!r},\n" for index, name in enumerate(NAMES)) + "}\n",
        "\n".join(f"{index}: {name}" for index, name in enumerate(NAMES)),
        "\n".join(f"{index}\t{name}" for index, name in enumerate(NAMES)),
        *(
            "\n".join(form.format(index, name) for index, name in reversed(list(enumerate(NAMES))))
            for form in ("{} {}", "{}  {}", "{}. {}", "{}) {}", "{}={}", "{1},{0}", "{1}: {0}", "{1}\t{0}")
        ),
        "name,idx\n" + "\n".join(f"{name},{index}" for index, name in enumerate(NAMES)),
        "idx,name\n" + "\n".join(f"{index},{name}" for index, name in reversed(list(enumerate(NAMES)))),
    ],
)
def test_every_usual_form_gives_the_same_names(tmp_path: Path, content: str | bytes) -> None:
    """Marks, line ends, brackets, indices and quotation marks are no part of a name."""
    assert read(tmp_path, content) == NAMES


def test_a_line_ends_where_an_editor_ends_it(tmp_path: Path) -> None:
    """Separators that only Unicode knows are part of a name and do not move the names after it, nor do line ends in JSON."""
    assert read(tmp_path, "a\u2028b\nc\x85d\n") == ("a\u2028b", "c\x85d")
    assert read(tmp_path, '["a\\nb", "c"]') == ("a b", "c")


def test_numbers_alone_are_names(tmp_path: Path) -> None:
    """The digits are named by digits, and a name may hold a number and a colon."""
    assert read(tmp_path, "0\n1\n2\n") == ("0", "1", "2")
    assert read(tmp_path, "3 series\n5 series\n") == ("3 series", "5 series")
    assert read(tmp_path, "level: 3\nlevel: 5\n") == ("level: 3", "level: 5")
    assert read(tmp_path, "Fiat 500\n2001: A Space Odyssey\ncat\n") == ("Fiat 500", "2001: A Space Odyssey", "cat")


def test_wordnet_ids_go_where_they_are_known_and_stay_where_not(tmp_path: Path) -> None:
    """ImageNet's own ids say nothing that their order does not; others are how folders are found."""
    ids = imagenet_wordnet_ids()
    names = tuple(f"name {index}" for index in range(1000))
    assert read(tmp_path, "\n".join(map("{} {}".format, ids, names))) == names
    assert read(tmp_path, json.dumps({str(index): pair for index, pair in enumerate(zip(ids, names, strict=True))})) == names
    assert read(tmp_path, f"{ids[1]} goldfish\n{ids[0]} tench") == (f"{ids[1]} goldfish", f"{ids[0]} tench")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9\ncat\n", "line 1 is not UTF-8"),
        (b"cat\ncaf\xe9\n", "line 2 is not UTF-8"),
        (b"\xff\xfea", "line 1 is not UTF-16"),
        ("", "names 0 classes"),
        ("cat\n", "names 1 classes"),
        ('["cat", "dog"', "cut off or not JSON"),
        ('{"0": "cat",\n"1": "dog"', "cut off or not JSON"),
        ("{0: 'cat',\n1: open('x')}", "cut off or not JSON"),
        ('{"a": "cat", "b": "dog"}', "neither indices to names"),
        ('{"0": "cat", "0": "dog", "1": "cow"}', "the same key twice"),
        ('[["n01440764", "tench", "x"], "dog"]', "is no class name"),
        ('{"cat": true, "dog": false}', "neither indices to names"),
        ("cat\ndog".encode("utf-16-le"), "zero bytes"),
        ('["cat", 3]', "'3' is no class name"),
        ('["cat", ""]', "no name for class 1"),
        ("[" * 100_000, "nested too deeply"),
        ("1: cat\n2: dog\n", "from 1 to 2, not from 0 to 1"),
        ("0: cat\n0: dog\n", "from 0 to 0, not from 0 to 1"),
        ("{0: 'cat', 2: 'dog'}", "from 0 to 2, not from 0 to 1"),
        ("0: cat\n1: dog\ncow\n", "'cow' has no number"),
        ("background\n" + "\n".join(f"name {index}" for index in range(1000)), "TensorFlow"),
        (b"a\n" * (MAX_LABEL_BYTES // 2 + 1), "larger than the 16 MiB"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_doubtful_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    """A name that would be wrong, missing or at another index is an error with a hint."""
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert caught.value.hint


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder, a pipe, a device and a name that cannot exist are errors, and nothing waits."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), tmp_path / "absent", tmp_path / ("x" * 300), Path("a\0b")):
        with pytest.raises(DataError):
            read_labels(path)


@example(b"{0:'\\x'}")
@given(st.binary(max_size=200) | st.text("{}[]\"':,0123n\\\n ab", max_size=60).map(str.encode))
def test_any_bytes_give_names_or_a_data_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever is in a file, there are at least two names without line ends, or an error of ours."""
    try:
        names = read(tmp_path_factory.getbasetemp(), content)
    except DataError:
        return
    assert len(names) >= 2
    assert all(name and "\n" not in name and "\r" not in name for name in names)
