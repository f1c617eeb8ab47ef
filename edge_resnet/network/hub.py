"""Weights from the Hugging Face Hub: the file, its commit, and what the repository says about it. Does not know about networks.

Only safetensors are loaded. Addresses, cache, tokens and offline mode are those of huggingface_hub (HF_ENDPOINT, HF_HOME,
HF_TOKEN, HF_HUB_OFFLINE).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors

from edge_resnet.core.errors import WeightsError
from edge_resnet.core.files import read_bounded
from edge_resnet.core.records import Progress
from edge_resnet.core.text import printable

__all__ = ["HubFile", "fetch"]

_log = logging.getLogger(__name__)

_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:/([^@#]+))?(?:@([^#]+))?(?:#(.+))?")
_USUAL = "model.safetensors"
#: Endings of files with weights that only code can read, or that are of other libraries.
_OTHERS = (".bin", ".pth", ".pt", ".ckpt", ".pkl", ".th", ".h5", ".msgpack", ".onnx", ".tflite", ".gguf")
_MAX_CONFIG = 1 << 20
#: Bytes. The largest network that has a name, wide_resnet101_2, has 0.5 GiB of weights.
_MAX_WEIGHTS = 2 << 30
_FILE_HINT = "download a file yourself and give it: edge-resnet build --weights FILE"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, in the cache of huggingface_hub.

    ``name``: of one of the networks in it, as asked for. ``revision``: the commit. ``config``, ``preprocessor``: the content of
    config.json and preprocessor_config.json, empty where the repository has none. ``license``: as the repository's card says.
    """

    path: Path
    name: str
    repository: str
    file: str
    revision: str
    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    license: str = ""

    @property
    def address(self) -> str:
        """The address that gives this file again, whatever the repository becomes."""
        return f"hf://{self.repository}/{self.file}@{self.revision}"


@dataclass(frozen=True)
class _Place:
    repository: str
    file: str
    revision: str
    name: str


@dataclass(frozen=True)
class _Listing:
    """What a repository contains at a commit or a branch. ``cached``: as far as it is in the cache, which alone is read.

    ``sizes``: file → bytes, of the files whose size the Hub states.
    """

    commit: str
    files: tuple[str, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    license: str = ""
    cached: bool = False


def fetch(address: str, *, progress: Progress | None = None) -> HubFile:
    """Download what ``hf://REPO[/FILE][@REVISION][#NAME]`` names, unless it is in the cache.

    Without FILE, the repository's only safetensors file, or ``model.safetensors``. Raises WeightsError where the address is none,
    the repository or the revision does not exist, is private or gated, has no safetensors, has more than 2 GiB of weights, or the
    Hub cannot be reached and the cache has nothing. Progress counts the bytes of a download; there is none for a cached file.
    """
    place = _parse(address)
    with _explained(place):
        listing = _listing(place)
        file = _weights_file(place, listing)
        # By the branch's name and not by its commit: the cache then knows what the branch was, for when there is no network.
        asked = listing if listing.cached else replace(listing, commit=place.revision or "main")
        path = _download(place, asked, file, _MAX_WEIGHTS, progress)
        listing = replace(listing, commit=_snapshot(path, file))
        folder = file.rpartition("/")[0]
        config, preprocessor = (_json(place, listing, folder, name) for name in ("config.json", "preprocessor_config.json"))
    return HubFile(path, place.name, place.repository, file, listing.commit, config, preprocessor, listing.license)


def _parse(address: str) -> _Place:
    match = _ADDRESS.fullmatch(address)
    if match is None or ".." in (match[2] or "").split("/"):
        raise WeightsError(f"{printable(address[:200])} is no address of weights", hint="hf://OWNER/NAME[/FILE][@REVISION]")
    return _Place(match[1], match[2] or "", match[3] or "", match[4] or "")


def _listing(place: _Place) -> _Listing:
    """The files at the revision: what the Hub says, or the cache where the Hub must not or cannot be asked."""
    revision = place.revision or None
    if constants.HF_HUB_OFFLINE:
        return _cached(place, "HF_HUB_OFFLINE is set")
    try:
        info = huggingface_hub.HfApi().model_info(place.repository, revision=revision, files_metadata=True)
    except Exception as error:
        if _answered(error):
            raise
        listing = _cached(place, f"the Hub cannot be reached ({_first_line(error)})")
        _log.warning("the Hub cannot be reached: %s@%s is taken from the cache", place.repository, listing.commit[:12])
        return listing
    card = info.card_data
    siblings = info.siblings or ()
    names = tuple(sibling.rfilename for sibling in siblings)
    sizes = {sibling.rfilename: sibling.size for sibling in siblings if sibling.size is not None}
    terms = card.get("license") if card is not None else None
    return _Listing(str(info.sha), names, sizes, printable(str(terms or "")[:100]))


def _answered(error: Exception) -> bool:
    """Whether the Hub has answered, with something else than that it is out of order."""
    response = getattr(error, "response", None)
    return isinstance(error, errors.HfHubHTTPError) and getattr(response, "status_code", 500) < 500


def _cached(place: _Place, why: str) -> _Listing:
    """The cached files at the revision: a branch as it was when it was last asked for, or a commit."""
    wanted = place.revision or "main"
    try:
        repositories = huggingface_hub.scan_cache_dir().repos
    except errors.CacheNotFound:
        repositories = frozenset()
    for repository in repositories:
        for revision in repository.revisions if repository.repo_id == place.repository else ():
            if wanted in revision.refs or (len(wanted) >= 7 and revision.commit_hash.startswith(wanted)):
                root = revision.snapshot_path
                files = tuple(file.file_path.relative_to(root).as_posix() for file in revision.files)
                return _Listing(revision.commit_hash, files, cached=True)
    raise WeightsError(
        f"{why}, and the cache has no {place.repository}@{wanted}",
        hint=f"build it once where there is a network, or {_FILE_HINT}",
    )


def _weights_file(place: _Place, listing: _Listing) -> str:
    """The safetensors file to take."""
    if place.file:
        if not place.file.endswith(".safetensors"):
            raise WeightsError(f"{place.file} is no safetensors file, and no other is loaded from the Hub", hint=_FILE_HINT)
        if place.file not in listing.files:
            raise WeightsError(f"{place.repository} has no file {place.file}", hint=_few("it has", listing.files))
        return place.file
    found = [name for name in listing.files if name.endswith(".safetensors")]
    if _USUAL in found or len(found) == 1:
        return _USUAL if _USUAL in found else found[0]
    if any(name.endswith(".safetensors.index.json") for name in listing.files):
        raise WeightsError(f"{place.repository} has its weights in several parts", hint="no ResNet is that large")
    if found:
        raise WeightsError(f"{place.repository} has several files of weights", hint=_few("add one to the address:", tuple(found)))
    others = tuple(name for name in listing.files if name.endswith(_OTHERS))
    if others:
        raise WeightsError(
            f"{place.repository} has no safetensors, only {', '.join(others[:3])}, which are never loaded from the Hub",
            hint=f"ask for safetensors there, or {_FILE_HINT}",
        )
    raise WeightsError(f"{place.repository} has no weights", hint=_few("it has", listing.files))


def _few(words: str, names: tuple[str, ...]) -> str:
    shown = ", ".join(printable(name[:100]) for name in names[:5])
    return f"{words} {shown or 'no files'}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _download(place: _Place, listing: _Listing, file: str, limit: int, progress: Progress | None = None) -> Path:
    """The file in the cache. Raises WeightsError where it has more than ``limit`` bytes, by what is stated or by what comes."""
    _refuse_large(file, listing.sizes.get(file, 0), limit)
    found = huggingface_hub.hf_hub_download(
        place.repository,
        file,
        revision=listing.commit,
        local_files_only=listing.cached,
        library_name="edge-resnet",
        tqdm_class=_bar(file, limit, progress),
    )
    return Path(str(found))


def _refuse_large(file: str, size: float, limit: int) -> None:
    if size > limit:
        stated, most = (f"{count / 2**20:,.0f} MiB" if count >= 2**20 else f"{count} bytes" for count in (size, limit))
        raise WeightsError(f"{file} has {stated}, of which at most {most} are downloaded", hint=_FILE_HINT)


def _bar(file: str, limit: int, progress: Progress | None) -> type[Any]:
    """A class in the place of tqdm's, which huggingface_hub tells what it downloads: reports it, and ends what is too long."""

    class Bar:
        def __init__(self, *, total: float | None = None, initial: float = 0, **_shown: object) -> None:
            self.total, self.n = total, 0.0
            _refuse_large(file, total or 0, limit)
            self.update(0)
            self.update(initial)

        def update(self, count: float = 1) -> None:
            self.n += count
            _refuse_large(file, self.n, limit)
            if progress is not None:
                progress("download", int(self.n), int(max(self.total or 0, self.n)))

        def update_transfer(self, count: float) -> None:
            """What crosses the network, which Xet reports beside what is written."""

        def set_postfix_str(self, *_: object, **__: object) -> None:
            """The speed, for people."""

        set_transfer_postfix_str = refresh = close = set_postfix_str

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing is drawn."""

    return Bar


def _snapshot(path: Path, file: str) -> str:
    """The commit of a file in the cache: the folder that holds the repository's files is called so."""
    return path.parents[file.count("/")].name


def _json(place: _Place, listing: _Listing, folder: str, name: str) -> Mapping[str, Any]:
    """A JSON file beside the weights, else at the top; empty if there is none."""
    names = [name for name in ((f"{folder}/{name}",) if folder else ()) if name in listing.files] + [name]
    if names[0] not in listing.files:
        return {}
    try:
        content = json.loads(read_bounded(_download(place, listing, names[0], _MAX_CONFIG), _MAX_CONFIG))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{names[0]} of {place.repository} is no JSON", hint=_FILE_HINT) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{names[0]} of {place.repository} is no JSON object", hint=_FILE_HINT)
    return content


@contextmanager
def _explained(place: _Place) -> Iterator[None]:
    """Turn the library's errors into WeightsError; none of them shows a token."""
    name = place.repository
    terms = f"accept its terms on {constants.ENDPOINT}/{name}, then log in: hf auth login"
    login = "check the spelling; for a private repository: hf auth login, or HF_TOKEN"
    try:
        yield
    except WeightsError:
        raise
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{name} is gated: the Hub gives its files only to those who accepted its terms", hint=terms
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{name} has no revision {place.revision}", hint="a branch, a tag or a commit after @") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(f"{name} does not exist on the Hub, or is private", hint=login) from error
    except errors.HFValidationError as error:
        raise WeightsError(f"{name} is no name of a repository", hint="hf://OWNER/NAME[/FILE][@REVISION]") from error
    except errors.LocalEntryNotFoundError as error:
        raise WeightsError(f"a file of {name} is not in the cache, and the Hub cannot be asked", hint=_FILE_HINT) from error
    except Exception as error:  # the HTTP library's own, by which step failed
        if getattr(getattr(error, "response", None), "status_code", 0) in (401, 403):
            raise WeightsError(f"the Hub refuses {name}: access is denied", hint=login) from error
        raise WeightsError(f"{name} cannot be downloaded from the Hub: {_first_line(error)}", hint=_FILE_HINT) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0][:200]) if lines else type(error).__name__
