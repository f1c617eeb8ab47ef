"""checks.py on machines made of records and small trees, with real packages, real permissions and broken ones on the path."""

from __future__ import annotations

import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from gpumachine import CPU, JETSON, package

from edge_resnet.core.packages import required_packages
from edge_resnet.deployment.doctor import checks, gpuchecks
from edge_resnet.deployment.doctor.check import Check
from edge_resnet.deployment.doctor.checks import examine, readiness, usable_backends
from edge_resnet.deployment.doctor.probe import ProbedMachine, probe_machine
from edge_resnet.device.machine import DeviceInfo
from edge_resnet.runtime.backend import Requirement, backend_info

REPO = Path(__file__).resolve().parents[3]
BACKENDS = {name: backend_info(name) for name in ("onnxruntime", "tensorrt")}


@pytest.fixture(scope="module")
def backends_here() -> list[Check]:
    """What the children that load the backends answer on this machine, asked once."""
    return checks.check_backends(CPU)


@pytest.fixture(autouse=True)
def asked_once(backends_here: list[Check], monkeypatch: pytest.MonkeyPatch) -> None:
    """Few of these tests are about the backends or the GPU: no child processes are started for each."""
    monkeypatch.setattr(checks, "check_backends", lambda _: backends_here)
    monkeypatch.setattr(gpuchecks, "probe_machine", lambda info, root: ProbedMachine(info, root, {}))


def found(name: str, info: DeviceInfo = CPU, root: Path = Path("/nowhere")) -> Check:
    return next(check for check in examine(root, info) if check.name == name)


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """A folder that everyone may enter, seen without the rights of root (access(2) uses the real user)."""
    real, effective, saved = os.getresuid()
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        try:
            if real == 0:
                os.setresuid(65534, effective, saved)
            yield Path(name)
        finally:
            os.setresuid(real, effective, saved)


def run_with(site: Path, code: str, *, gpu: bool = False, **environment: str) -> str:
    """Run Python with ``site`` before all other packages; its examination leaves the backends out, as in this process.

    So it does with what the GPU needs, unless ``gpu``.
    """
    code = f"from edge_resnet.deployment.doctor import checks, gpuchecks, probe\nchecks.check_backends = lambda _: []\n{code}"
    if not gpu:
        code = code.replace("\n", "\ngpuchecks.probe_machine = lambda info, root: probe.ProbedMachine(info, root, {})\n", 1)
    environment = {**os.environ, "PYTHONPATH": str(site), **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout


def test_names_are_unique_and_fixes_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are unique and fixes can be pasted; on machines other than a Jetson a check that is ok has no fix."""
    monkeypatch.setattr(gpuchecks, "probe_machine", probe_machine)
    made = examine(Path("/nowhere"), replace(CPU, memory_available_mib=10))
    assert len({check.name for check in made}) == len(made)
    assert all("\n" not in check.fix + check.detail for check in made)
    assert all(not check.fix for check in made if check.status == "ok")


def test_versions_are_those_of_pyproject() -> None:
    """The minimum versions and the extras are the ones that pip installs by."""
    project = (REPO / "pyproject.toml").read_text()
    made = {check.name: check for check in examine(Path("/nowhere"), CPU)}
    for extra in ("", "compile", "build", "demo"):
        for name, minimum in required_packages(extra).items():
            line = rf'^    "{name}>={minimum}' if not extra else rf'^{extra} = \[.*"{name}>={minimum}"'
            assert re.search(line, project, re.MULTILINE), name
            assert made[name].group == (extra or "base")
    for requirement in ("tensorrt>=8.6", "pycuda>=2024.1"):
        assert f'"{requirement}"' in project


def test_this_machine_has_the_base() -> None:
    """The packages that run these tests are found, with their versions."""
    base = [check for check in examine() if check.group == "base"]
    assert {check.name: check.status for check in base} == dict.fromkeys(["python", *required_packages()], "ok")
    assert all(check.detail[0].isdigit() for check in base)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not found is missing; the fix installs the extra, or the package if every command needs it."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert found("torch") == Check("torch", "missing", "not installed", "pip install 'edge-resnet[build]'", "build")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert found("onnx").fix == "pip install 'edge-resnet[compile]'"
    assert found("onnxruntime").fix == "pip install 'onnxruntime>=1.18'"


def test_broken_package(tmp_path: Path) -> None:
    """A package that does not load is a problem, with the first line of its error."""
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libfoo.so.1: cannot open\\nsecond line')\n")
    code = "from edge_resnet.deployment.doctor.checks import *; print([c for c in examine() if c.name == 'onnxruntime'][0])"
    shown = run_with(tmp_path, code)
    assert "status='problem'" in shown
    assert "cannot be imported: libfoo.so.1: cannot open'" in shown
    assert "pip install --force-reinstall 'onnxruntime>=1.18'" in shown


def test_old_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package below the minimum version is a problem that an upgrade fixes."""
    (tmp_path / "scikit_learn-1.2.9.dist-info").mkdir()
    (tmp_path / "scikit_learn-1.2.9.dist-info/METADATA").write_text("Name: scikit-learn\nVersion: 1.2.9\n")
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    check = found("scikit-learn")
    assert (check.status, check.detail) == ("problem", "1.2.9 is older than 1.3")
    assert check.fix == "pip install --upgrade 'scikit-learn>=1.3'"


@pytest.mark.parametrize(
    ("info", "status", "words"),
    [
        (CPU, "ok", "dot product"),
        (replace(CPU, has_int8_dot_product=False), "missing", "no VNNI: slower, and weights are kept to 7 bits"),
        (replace(JETSON, has_int8_dot_product=False), "missing", "no dot product: slower"),
    ],
)
def test_int8(info: DeviceInfo, status: str, words: str) -> None:
    """What INT8 costs depends on the CPU; no command changes it."""
    check = found("int8", info)
    assert (check.status, check.fix) == (status, "")
    assert words in check.detail


def test_memory() -> None:
    """Little memory is a problem; the fix on a Jetson stops the desktop. Unknown memory is no problem."""
    assert found("memory").status == "ok"
    small = found("memory", replace(JETSON, memory_available_mib=2047))
    assert small.fix == "sudo systemctl isolate multi-user.target"
    assert small.detail == "2047 of 8192 MiB available, 2048 needed to build engines for the GPU"
    assert found("memory", replace(JETSON, memory_available_mib=2048)).status == "ok"
    low = found("memory", replace(CPU, memory_available_mib=1023))
    assert (low.status, low.detail, low.fix) == ("problem", "1023 of 8192 MiB available, 1024 needed", "")
    assert found("memory", replace(CPU, memory_available_mib=None)).status == "missing"


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("total_mib", "swap_kib", "zram", "status", "detail", "fix"),
    [
        (7620, 3901440, True, "ok", "3810 MiB", ""),
        (7620, 0, True, "problem", "none: engine builds may run out", "sudo systemctl enable --now nvzramconfig"),
        (
            7620, 0, False, "problem", "none: engine builds may run out",
            "sudo fallocate -l 8G /swap && sudo chmod 600 /swap && sudo mkswap /swap && sudo swapon /swap",
        ),
        (30698, 0, True, "ok", "none, with 30698 MiB of memory", ""),
    ],
)  # fmt: skip
def test_swap(tmp_path: Path, total_mib: int, swap_kib: int, zram: bool, status: str, detail: str, fix: str) -> None:
    """A Jetson with 8 GiB or less needs swap to build engines; the fix enables that of JetPack if it is installed."""
    plant(tmp_path, {"proc/meminfo": f"SwapTotal:  {swap_kib} kB\n"} | ({"etc/systemd/nvzramconfig.sh": ""} if zram else {}))
    check = found("swap", replace(JETSON, memory_total_mib=total_mib), tmp_path)
    assert (check.status, check.fix, check.group) == (status, fix, "machine")
    assert check.detail.startswith(detail)


MODES = "< POWER_MODEL ID={} NAME={} >\nCPU_ONLINE CORE_0 1\n"


@pytest.mark.parametrize(
    ("mode", "names", "detail", "fix"),
    [
        ("15W", ["15W", "25W", "MAXN_SUPER", "7W"], "15W, not the fastest (MAXN_SUPER)", "sudo nvpmodel -m 2"),
        ("25W", ["15W", "25W", "MAXN", "MAXN_SUPER"], "25W, not the fastest (MAXN_SUPER)", "sudo nvpmodel -m 3"),
        ("MAXN_SUPER", ["MAXN", "MAXN_SUPER"], "MAXN_SUPER", ""),
        ("7W", ["15W", "7W"], "7W, not the fastest (15W)", "sudo nvpmodel -m 0"),
        ("15W", ["15W", "7W"], "15W", ""),
        ("MODE_15W_2CORE", ["MODE_15W_2CORE", "MODE_15W_6CORE"], "MODE_15W_2CORE", ""),
        ("120W", ["MAXN", "120W"], "120W, not the fastest (MAXN)", "sudo nvpmodel -m 0"),
        ("3", [], "mode 3", ""),
    ],
)
def test_power_mode(tmp_path: Path, mode: str, names: list[str], detail: str, fix: str) -> None:
    """A power mode that is not the fastest is no problem, and has a fix."""
    plant(tmp_path, {"etc/nvpmodel.conf": "".join(MODES.format(number, name) for number, name in enumerate(names))})
    assert found("power", replace(JETSON, power_mode=mode), tmp_path) == Check("power", "ok", detail, fix, "machine")


@pytest.mark.parametrize(
    ("least", "now", "detail", "fix"),
    [
        (306, 306, "GPU at 306 of 1020 MHz, follows the load: pin it before measuring", "sudo jetson_clocks"),
        (1020, 1020, "GPU pinned at 1020 MHz", ""),
    ],
)
def test_clocks(tmp_path: Path, least: int, now: int, detail: str, fix: str) -> None:
    """Clocks that follow the load are a problem only for measurements."""
    gpu = "sys/class/devfreq/17000000.gpu"
    values = {"cur": now, "min": least, "max": 1020}
    plant(tmp_path, {f"{gpu}/{name}_freq": f"{mhz}000000\n" for name, mhz in values.items()})
    assert found("clocks", JETSON, tmp_path) == Check("clocks", "ok", detail, fix, "machine")


def test_only_a_jetson_has_a_board(tmp_path: Path) -> None:
    """Values that a Jetson does not report are not mentioned, nor on machines other than a Jetson."""
    plant(tmp_path, {"proc/meminfo": "SwapTotal:  0 kB\n"})
    board = {"swap", "power", "clocks"}
    assert board.isdisjoint(check.name for check in examine(tmp_path, CPU))
    assert board.isdisjoint(check.name for check in examine(Path("/nowhere"), JETSON))


@pytest.mark.parametrize(("free_mib", "status"), [(2047, "problem"), (2048, "ok")])
def test_disk(monkeypatch: pytest.MonkeyPatch, free_mib: int, status: str) -> None:
    """Less than 2 GiB in the current folder is a problem."""
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 0, free_mib * 2**20))
    check = found("disk")
    assert check.status == status
    assert str(free_mib) in check.detail


def test_current_folder_that_is_gone(tmp_path: Path) -> None:
    """A deleted working folder is a problem, not a traceback."""
    code = (
        f"import os; os.mkdir({str(tmp_path / 'w')!r}); os.chdir({str(tmp_path / 'w')!r}); os.rmdir({str(tmp_path / 'w')!r})\n"
        "from edge_resnet.deployment.doctor.checks import *; print([c for c in examine() if c.name == 'disk'][0])"
    )
    assert "status='problem', detail='the current folder cannot be read" in run_with(tmp_path, code)


def test_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest existing folder decides whether the cache can be written."""
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "new/deeper"))
        folder.chmod(0o777)
        assert found("cache").status == "ok"
        folder.chmod(0o555)
        check = found("cache")
    assert check.status == "problem"
    assert check.fix == f'sudo install -d -o "$USER" {folder}/new/deeper/edge-resnet'


def test_cameras(tmp_path: Path) -> None:
    """Cameras are ok if this user may open one of them; otherwise the fix is the group that may."""
    assert found("cameras", root=tmp_path).status == "missing"
    with ordinary_user() as root:
        (root / "dev").mkdir(mode=0o755)
        for number in range(5):
            (root / f"dev/video{number}").touch()
            (root / f"dev/video{number}").chmod(0)
        refused = found("cameras", root=root)
        (root / "dev/video1").chmod(0o666)
        allowed = found("cameras", root=root)
    assert (refused.status, refused.fix) == ("problem", "sudo usermod -aG video $USER")
    assert (allowed.status, allowed.detail) == ("ok", "/dev/video0, /dev/video1, /dev/video2, …")


def test_opencv_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Jetson the fix is never the OpenCV of pip, which has no GStreamer."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(checks, "_OPENCV", ())
    assert found("opencv").fix == "pip install 'edge-resnet[camera]'"
    assert found("opencv", JETSON, tmp_path).fix == "sudo apt-get install -y python3-opencv"
    (tmp_path / "usr/lib/python3.10/dist-packages/cv2").mkdir(parents=True)
    unseen = found("opencv", JETSON, tmp_path)
    assert (unseen.status, unseen.detail) == ("problem", "the one of JetPack is not visible to this Python")
    assert "-m venv --system-site-packages" in unseen.fix


def test_opencv_of_pip(tmp_path: Path) -> None:
    """The OpenCV of pip is fine on a desktop; on a Jetson it hides the one with GStreamer and has to be removed."""
    cv2 = pytest.importorskip("cv2")
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer")
    assert found("opencv").detail == f"{cv2.__version__} without GStreamer (USB, files and RTSP work)"
    hiding = found("opencv", JETSON, tmp_path)
    assert hiding.status == "problem"
    assert re.fullmatch(r"pip uninstall -y( opencv-[a-z-]+)+", hiding.fix)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("class videoio_registry:\n    hasBackend = staticmethod(lambda _: True)", "ok", "4.8.0 with GStreamer"),
        ("class videoio_registry:\n    hasBackend = staticmethod(lambda _: False)", "ok", "4.8.0 without GStreamer"),
        ("", "ok", "4.8.0 without GStreamer"),
        ("raise ImportError('libGL.so.1: cannot open shared object file')", "problem", "libGL.so.1"),
        ("raise ImportError('numpy.core.multiarray failed to import')", "problem", "numpy.core.multiarray"),
    ],
)
def test_opencv_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, status: str, words: str) -> None:
    """Any OpenCV is imported and queried; one that is too old or broken does not stop the other checks."""
    (tmp_path / "cv2.py").write_text(f"__version__ = '4.8.0'\nCAP_GSTREAMER = 1800\n{body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "cv2", None)  # so that whatever is imported is put back, or away
    del sys.modules["cv2"]
    check = found("opencv")
    assert check.status == status
    assert words in check.detail
    assert bool(check.fix) == (status == "problem")


def test_old_jetpack_is_never_ready(tmp_path: Path) -> None:
    """JetPack 5 is a problem, and no command is ready on it."""
    info = replace(JETSON, l4t="35.4.1", jetpack="5.1.2")
    made = examine(plant(tmp_path, {"etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 0\n"}), info)
    ready = readiness(made, BACKENDS)
    assert ready.commands == ()
    assert "JetPack 5.1.2 (L4T 35.4.1) is too old" in ready.reason


def fine(*names: str) -> list[Check]:
    groups = {
        "opencv": "camera",
        "cameras": "camera",
        "scikit-learn": "demo",
        "torch": "build",
        "onnx": "compile",
        "numpy": "base",
    }
    return [Check(name, "missing" if name in names else "ok", "", "", group) for name, group in groups.items()]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lacking", "commands"),
    [
        ((), ("build", "compile", "eval", "run", "run --camera", "demo")),
        (("cameras",), ("build", "compile", "eval", "run", "demo")),
        (("opencv", "scikit-learn"), ("build", "compile", "eval", "run")),
        (("torch",), ("compile", "eval", "run", "run --camera")),
        (("onnx",), ("eval", "run", "run --camera")),
        (("numpy",), ()),
    ],
)
def test_readiness(lacking: tuple[str, ...], commands: tuple[str, ...]) -> None:
    """Each missing package disables the commands that need it, and no others."""
    ready = readiness(fine(*lacking), BACKENDS)
    assert ready.commands == commands
    assert ready.reason == ("" if commands else "numpy missing or broken")


def test_no_backend_is_not_ready() -> None:
    """Nothing is ready if no backend can run."""
    missing = replace(BACKENDS["onnxruntime"], requirements=(Requirement("no_such_package", "none"),))
    assert readiness(fine(), {"openvino": missing}).reason == "no backend can run"


def test_usable_backends() -> None:
    """TensorRT needs its package, PyCUDA or cuda.core, and the driver; the order is the table's; no package, no obstacle."""
    cpu = BACKENDS["onnxruntime"]
    without, missing = (replace(cpu, requirements=needed) for needed in ((), (Requirement("no_such_package", "none"),)))
    table = {"fake": without, "tensorrt": BACKENDS["tensorrt"], "onnxruntime": cpu, "none": missing}
    whole = [Check(name, "ok", "", "", "tensorrt") for name in ("gpu", "driver", "tensorrt", "pycuda")]
    assert usable_backends(whole, table) == ("fake", "tensorrt", "onnxruntime")
    assert usable_backends([], table) == ("fake", "onnxruntime")
    for number in (1, 2, 3):
        for status in ("missing", "problem"):
            lacking = [*whole[:number], replace(whole[number], status=status), *whole[number + 1 :]]
            assert usable_backends(lacking, table) == ("fake", "onnxruntime")
    core = Check("cuda-core", "ok", "", "", "tensorrt")
    assert usable_backends([*whole[:3], core], table) == ("fake", "tensorrt", "onnxruntime")


def test_a_gpu_machine_is_ready_when_all_of_it_loads(tmp_path: Path, libcuda: Path) -> None:
    """The GPU backend is usable only if driver, TensorRT and PyCUDA load; this process loads none of them."""
    package(tmp_path, "tensorrt", "__version__ = '10.3.0'")
    package(tmp_path, "pycuda.driver", "def get_version(): return (12, 6, 0)")
    lost = "raise ImportError('libcurand.so.10: cannot open')"
    # The bindings of cuda.core may be those of CUDA 13, which the next driver runs.
    states = [
        ({"STUB_CUDA": "12060"}, None),
        ({"STUB_CUDA": "12060", "STUB_FAILS": "cuInit=999"}, None),
        ({"STUB_CUDA": "11080", "STUB_FAILS": ""}, lost),
        ({"STUB_CUDA": "13000"}, lost),
    ]
    code = (
        "import os, sys; from pathlib import Path; from edge_resnet.deployment.doctor.checks import *\n"
        "from edge_resnet.runtime.backend import backend_info\n"
        "backends = {name: backend_info(name) for name in ('onnxruntime', 'tensorrt')}\n"
        "sys.modules['tensorrt_rtx'] = None\n"
        f"for variables, pycuda in {states!r}:\n"
        "    os.environ.update(variables)\n"
        f"    pycuda is None or Path({str(tmp_path / 'pycuda/driver.py')!r}).write_text(pycuda)\n"
        "    print(*readiness(examine(), backends).backends)\n"
        "print({'tensorrt', 'pycuda'} & set(sys.modules))"
    )
    shown = run_with(tmp_path, code, gpu=True, LD_LIBRARY_PATH=str(libcuda.parent)).splitlines()
    assert shown == ["onnxruntime tensorrt", "onnxruntime", "onnxruntime", "onnxruntime tensorrt", "set()"]


def test_the_offline_side_is_not_imported(tmp_path: Path) -> None:
    """Checking for torch, onnx, TensorRT and PyCUDA loads none of them."""
    for name in ("tensorrt", "pycuda"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('must not be imported')\n")
    loaded = set(
        run_with(
            tmp_path,
            "import sys; from edge_resnet.deployment.doctor.checks import examine; examine(); print(*sys.modules)",
            gpu=True,
        ).split()
    )
    assert loaded.isdisjoint({"torch", "torchvision", "onnx", "tensorrt", "pycuda", "sklearn"})
