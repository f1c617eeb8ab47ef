"""A backend that is broken is one failed check, however it breaks, and nothing that it started is left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edge_resnet.deployment.selftest.check import Check
from edge_resnet.deployment.selftest.child import run_task
from edge_resnet.deployment.selftest.golden import ARTIFACT
from edge_resnet.deployment.selftest.task import Task, as_json, from_json


def checks(tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch, limit_s: float = 60.0) -> list[Check]:
    """The checks of the backend openvino, where the package of that name is ``package``."""
    (tmp_path / "site" / "openvino").mkdir(parents=True)
    (tmp_path / "site" / "openvino" / "__init__.py").write_text(package, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    task = Task("openvino", "openvino", str(tmp_path / "own"), str(tmp_path), str(ARTIFACT), golden=True, calls=10)
    return list(run_task(task, lambda group, name, seconds: None, limit_s))


@pytest.mark.parametrize(
    ("package", "detail"),
    [
        (
            "raise ImportError('libtbb.so.12: cannot open')",
            "backend openvino needs a package (pip install 'edge-resnet[openvino]')",
        ),
        pytest.param("raise RuntimeError('no AVX here')", "RuntimeError: no AVX here", marks=pytest.mark.slow),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "crashed (SIGSEGV); the checks after it were not made",
        ),
        pytest.param(
            "import os, sys; print('bad news', file=sys.stderr, flush=True); os._exit(7)",
            "ended with exit code 7: bad news; the checks after it were not made",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_package_that_breaks_when_it_is_imported(
    tmp_path: Path, package: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the failed check of the import, in one line."""
    (found,) = checks(tmp_path, package, monkeypatch)
    assert (found.group, found.name, found.status, found.detail) == ("openvino", "installed", "failed", detail)


def test_a_crash_while_it_works_keeps_the_checks_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a library prints is not taken for a result, and the check that ran is the one that failed."""
    package = (
        "import os, signal\nprint('{\"check\": 1}')\nos.write(1, b'garbage\\n')\n__version__ = '1'\n"
        "class Core:\n    read_model = lambda self, graph: graph\n"
        "    compile_model = lambda self, *words: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    get_property = lambda self, *words: []\n"
    )
    found = checks(tmp_path, package, monkeypatch)
    assert [(check.name, check.status) for check in found] == [
        ("installed", "ok"), ("fp32 compile", "ok"), ("fp32 answers", "failed"),
    ]  # fmt: skip
    assert found[-1].detail.startswith("crashed (SIGSEGV)")


def test_a_package_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it started: after the limit of one check both are gone."""
    marker = tmp_path / "pid"
    package = (
        "import subprocess, time\nchild = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(marker)!r}, 'w').write(str(child.pid))\ntime.sleep(600)\n"
    )
    for limit_s in (3.0, 6.0, 12.0, 24.0, 48.0):  # on a busy machine an interpreter may take longer to start
        (found,) = checks(tmp_path / str(limit_s), package, monkeypatch, limit_s)
        if found.name != "start":
            break
    assert (found.name, found.status) == ("installed", "failed")
    assert found.detail.startswith("no end after")
    pid = int(marker.read_text(encoding="utf-8"))
    deadline = time.monotonic() + 60
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return "(sleep) Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8") and os.kill(pid, 0) is None
    except (OSError, ProcessLookupError):
        return False


def test_a_damaged_artifact_is_a_failed_check(tmp_path: Path) -> None:
    """The child ends with the reason, which the check holds."""
    task = Task("x", "onnxruntime", str(tmp_path / "own"), str(tmp_path), str(tmp_path / "none"), golden=True, calls=10)
    (found,) = run_task(task, lambda group, name, seconds: None, 60)
    assert (found.status, found.name) == ("failed", "start")
    assert "no artifact at" in found.detail


def test_a_task_survives_its_way_to_the_child() -> None:
    """Quotes, blanks and brackets in a path."""
    task = Task("a, b", "openvino", "/x y/'z'", '/"q"', "/[r]", golden=False, calls=3, bench_s=0.5)
    assert from_json(as_json(task)) == task


def test_what_is_printed_before_the_child_begins_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``sitecustomize`` prints before the child can keep its output for itself."""
    (tmp_path / "early").mkdir()
    lines = "import os\nos.write(1, b'hello \\xff\\n[1]\\n17\\n')\n"
    (tmp_path / "early" / "sitecustomize.py").write_text(lines, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "early"))
    (found,) = checks(tmp_path, "raise RuntimeError('no AVX here')", monkeypatch)
    assert (found.name, found.detail) == ("installed", "RuntimeError: no AVX here")


@pytest.mark.parametrize(
    ("backend", "module", "status"), [("tensorrt-rtx", "tensorrt_rtx", "failed"), ("tensorrt", "tensorrt", "not here")]
)
def test_a_missing_gpu_excuses_only_what_needs_one(
    tmp_path: Path, backend: str, module: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT for RTX compiles without a GPU: where its library cannot be imported, that is a fault of the installation."""
    (tmp_path / "site" / module).mkdir(parents=True)
    (tmp_path / "site" / module / "__init__.py").write_text("raise ImportError('broken')", encoding="utf-8")
    (tmp_path / "site" / "libcuda.so.1").write_text("", encoding="utf-8")  # no driver, also where there is one
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "site"))
    task = Task(backend, backend, str(tmp_path / "own"), str(tmp_path), str(ARTIFACT), golden=True, calls=10)
    (found,) = run_task(task, lambda group, name, seconds: None, 60.0)
    assert (found.name, found.status) == ("installed", status)
