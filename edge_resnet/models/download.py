"""One file over HTTP, whole and with the right hash or not at all. Knows nothing of what is in it."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from edge_resnet.core.errors import WeightsError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import Progress

__all__ = ["download"]

TIMEOUT_S = 30.0
BLOCK = 1 << 18


def download(url: str, target: Path, sha256_prefix: str, *, progress: Progress | None = None) -> Path:
    """Fetch ``url`` to ``target`` unless it is there; either way its sha256 must begin with ``sha256_prefix``.

    Progress counts bytes. Raises WeightsError that names the URL and the target where there is no network, the answer is cut
    short, or the hash differs; then nothing is left at ``target`` that was not there before.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.exists():
            if not sha256_of(target).startswith(sha256_prefix):
                raise WeightsError(f"{target} is damaged: its sha256 does not begin with {sha256_prefix}", hint=f"rm {target}")
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = _stream(url, part, progress)
        if not digest.startswith(sha256_prefix):
            raise WeightsError(
                f"{url} has sha256 {digest[:12]}…, not {sha256_prefix}…", hint="try again; --weights PATH takes a file"
            )
        part.rename(target)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: an address or a header that cannot be parsed
        reason = getattr(error, "reason", error)
        if isinstance(error, HTTPError):
            reason = error  # with the status, which its reason lacks
            error.close()  # it is the open answer as well
        raise WeightsError(
            f"cannot download {url}: {reason}",
            hint=f"fetch it elsewhere and put it at {target}, or name a file with --weights PATH",
        ) from error
    finally:
        with suppress(OSError):  # where the folder is none, or may not be written to, no part was written either
            part.unlink()
    return target


def _stream(url: str, part: Path, progress: Progress | None) -> str:
    """Write the answer to ``part`` and return its sha256; a cut answer is an OSError."""
    digest = hashlib.sha256()
    with urlopen(url, timeout=TIMEOUT_S) as answer, part.open("wb") as file:  # noqa: S310 - torchvision's own https addresses
        total, done = int(answer.headers.get("Content-Length") or 0), 0
        if progress is not None:
            progress("download", 0, total)
        while block := answer.read(BLOCK):
            file.write(block)
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress("download", done, max(total, done))
    if total and done != total:
        raise OSError(f"the connection ended after {done} of {total} bytes")
    return digest.hexdigest()
