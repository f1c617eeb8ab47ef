"""Whether TensorRT, the libraries it needs, and PyCUDA work and fit this GPU, and the one command that fixes each problem.

Does not know about networks, artifacts or printing, and imports neither library: probe.py has probed them.
"""

from __future__ import annotations

import importlib.metadata
import re
from functools import partial

from edge_resnet.core.packages import extra_command, installed_version, is_older, minimum_version
from edge_resnet.deployment.doctor.check import Check, is_importable, is_installed_by_apt, system_site_command
from edge_resnet.deployment.doctor.probe import ProbedMachine, ProbeResult

__all__ = ["check_cudnn", "check_pycuda", "check_tensorrt", "fitting_tensorrt"]

_APT_AGAIN = "sudo apt-get install --reinstall -y"
#: TensorRT, newest first → the oldest compute capability that it runs on (its release notes and support matrices).
_OLDEST_GPU = (("10.5", "7.5"), ("10.0", "7.0"), ("8.6", "6.0"))
#: Compute capability, newest first → the oldest TensorRT that knows it (its release notes).
_OLDEST_TENSORRT = (("12.0", "10.8"), ("11.0", "10.13"), ("10.0", "10.8"))
_LEAN = ("tensorrt_lean", "tensorrt_dispatch")
_PARTS = ("", "-bindings", "-libs")
_CUDAS = (13, 12, 11)
_SYSTEM_PACKAGES = "/usr/lib/python3"

_problem = partial(Check, "tensorrt", "problem", group="tensorrt")


def check_tensorrt(machine: ProbedMachine, driver_fix: str) -> Check:
    """TensorRT's module and library, and whether they fit. ``driver_fix``: the fix for the driver, used if it is the cause."""
    result = machine.results.get("tensorrt")
    if result is None:
        return _without_tensorrt(machine)
    version = result.facts.get("version") or machine.info.tensorrt or ""
    if not machine.has_gpu:
        lack = f"; {result.failure}" if result.failure else ""
        return Check("tensorrt", "missing" if lack else "ok", f"{version or 'installed'}{lack}", "", "tensorrt")
    minimum = minimum_version("tensorrt")
    if version and is_older(version, minimum):
        fix = _other_tensorrt(machine, f"pip install --upgrade 'tensorrt>={minimum}'")
        return _problem(f"{version} is older than {minimum}", fix)
    cudas = _cudas_of_tensorrt()
    if len(cudas) > 1:
        both = " and ".join(f"tensorrt-cu{cuda}" for cuda in cudas)
        return _problem(f"{both} overwrite each other", _one_tensorrt(machine, cudas))
    if result.failure:
        return _problem(f"cannot be imported: {result.failure}", _fix_import(machine, result, driver_fix))
    return (
        _disagreeing(machine, version, result.facts["library"])
        or _wrong_for_jetson(machine, version)
        or _wrong_for_gpu(machine, version)
        or Check("tensorrt", "ok", version, "", "tensorrt")
    )


def check_cudnn(machine: ProbedMachine) -> list[Check]:
    """cuDNN 8, which only TensorRT 8 calls; empty if another TensorRT or none is installed."""
    result = machine.results.get("tensorrt")
    version = (result.facts.get("version") if result else "") or machine.info.tensorrt or ""
    if result is None or not machine.has_gpu or not version.startswith("8."):
        return []
    from_pip = installed_version("nvidia-cudnn-cu12", "nvidia-cudnn-cu11") or ""
    places = ("usr/lib/*/", "usr/local/cuda/lib64/")
    if from_pip.startswith("8.") or any(next(machine.root.glob(f"{place}libcudnn.so.8*"), None) for place in places):
        return [Check("cudnn", "ok", from_pip if from_pip.startswith("8.") else "8", "", "tensorrt")]
    return [Check("cudnn", "problem", "TensorRT 8 needs cuDNN 8, which is not installed", _install_cudnn(machine), "tensorrt")]


def check_pycuda(machine: ProbedMachine, driver_fix: str) -> Check:
    """Whether PyCUDA loads and was compiled for a CUDA that the driver runs. ``driver_fix``: as for ``check_tensorrt``."""
    result = machine.results.get("pycuda")
    if result is None:
        if not machine.has_gpu:
            return Check("pycuda", "missing", "not installed; needs an NVIDIA GPU", "", "tensorrt")
        # pip compiles it during the installation, with the toolkit that is on PATH.
        fix = f"PATH=/usr/local/cuda/bin:$PATH pip install 'pycuda>={minimum_version('pycuda')}'"
        return Check("pycuda", "missing", "not installed", fix, "tensorrt")
    version = installed_version("pycuda") or "installed"
    if not machine.has_gpu:
        lack = f"; {result.failure}" if result.failure else ""
        return Check("pycuda", "missing" if lack else "ok", f"{version}{lack}", "", "tensorrt")
    if result.failure:
        fix = _fix_pycuda(machine, result, driver_fix)
        return Check("pycuda", "problem", f"cannot be imported: {result.failure}", fix, "tensorrt")
    built, runs = result.facts["cuda"], machine.driver.get("cuda", "")
    if built and runs and _major(built) > _major(runs):
        detail = f"{version} was compiled for CUDA {built}, the driver runs {runs}"
        return Check("pycuda", "problem", detail, _rebuild_pycuda(f"cuda-{_major(runs)}"), "tensorrt")
    return Check("pycuda", "ok", f"{version}, compiled for CUDA {built}" if built else version, "", "tensorrt")


def fitting_tensorrt(machine: ProbedMachine, cuda: str) -> str:
    """The command that replaces pip's TensorRT by one for the driver's CUDA; empty if it is not pip's."""
    if not _from_pip():
        return ""
    return _other_tensorrt(
        machine, f"{_remove_tensorrt()} && pip install 'tensorrt-cu{_major(cuda)}>={minimum_version('tensorrt')}'"
    )


def _without_tensorrt(machine: ProbedMachine) -> Check:
    if not machine.has_gpu:
        return Check("tensorrt", "missing", "not installed; needs an NVIDIA GPU", "", "tensorrt")
    if is_installed_by_apt(machine.root, "tensorrt"):
        return _problem(f"{machine.info.tensorrt or 'installed'}, but not visible to this Python", system_site_command())
    fix = "sudo apt-get install -y nvidia-jetpack" if machine.is_jetson else extra_command("tensorrt")
    lean = next((module for module in _LEAN if is_importable(module)), None)
    if lean:
        return _problem(f"only {lean} is installed, which cannot build engines", fix)
    return Check("tensorrt", "missing", "not installed", fix, "tensorrt")


def _disagreeing(machine: ProbedMachine, version: str, library: str) -> Check | None:
    """The module, the library that it loaded and pip's record must have the same version."""
    pip = _from_pip()
    recorded = next((pip[name] for name in ("tensorrt", *(f"tensorrt-cu{cuda}" for cuda in _CUDAS)) if name in pip), "")
    for other, owner in ((library, "libnvinfer"), (recorded, "pip's record")):
        if other and _release(other) != _release(version):
            return _problem(f"the module is {version}, {owner} {other}", _other_tensorrt(machine, _reinstall_tensorrt(machine)))
    return None


def _wrong_for_jetson(machine: ProbedMachine, version: str) -> Check | None:
    """TensorRT's releases for JetPack (guide "Migrating from 10.x to 11.x", Jetson); 10.13 for Arm servers lacks sm_87."""
    l4t = machine.info.l4t
    if l4t is None:
        return None
    if machine.capability == "8.7" and _release(version)[:2] == [10, 13]:
        return _problem(f"{version} has no kernels for Orin", _other_tensorrt(machine, "sudo apt-get install -y nvidia-jetpack"))
    if is_older(version, "11.0") or (not is_older(version, "11.4.1") and not is_older(l4t, "39.2.2")):
        return None
    if not is_older(l4t, "39.2.2"):
        return _problem(f"{version} does not support Jetson, 11.4.1 does", "pip install --upgrade 'tensorrt>=11.4.1'")
    fix = _other_tensorrt(machine, "sudo apt-get install -y nvidia-jetpack")
    return _problem(f"{version} does not support JetPack {machine.info.jetpack or l4t}, 10.x does", fix)


def _wrong_for_gpu(machine: ProbedMachine, version: str) -> Check | None:
    capability = machine.capability
    if not capability:
        return None
    oldest_gpu = next((gpu for tensorrt, gpu in _OLDEST_GPU if not is_older(version, tensorrt)), "")
    if is_older(capability, oldest_gpu):
        # The newest release that still supports this GPU precedes this one.
        dropped = [tensorrt for tensorrt, gpu in _OLDEST_GPU if is_older(capability, gpu)][-1]
        minimum = minimum_version("tensorrt")
        fix = f"pip install 'tensorrt>={minimum},<{dropped}'" if is_older(minimum, dropped) else ""
        return _problem(f"{version} does not support compute capability {capability}", fix)
    needed = next((tensorrt for gpu, tensorrt in _OLDEST_TENSORRT if not is_older(capability, gpu)), "")
    if needed and is_older(version, needed):
        fix = _other_tensorrt(machine, f"pip install --upgrade 'tensorrt>={needed}'")
        return _problem(f"{version} does not know compute capability {capability}, {needed} does", fix)
    return None


def _fix_import(machine: ProbedMachine, result: ProbeResult, driver_fix: str) -> str:
    failure = result.failure
    compiled = re.search(r"compiled for Python (\d+\.\d+)", failure)
    if compiled:
        return f"/usr/bin/python{compiled[1]} -m venv --system-site-packages .venv"
    if "numpy" in failure.lower():
        return "pip install 'numpy<2'"
    if "libnvdla_compiler" in failure:
        return _fix_dla(machine)
    if "libcudnn.so.8" in failure:
        return _install_cudnn(machine)
    if driver_fix and _driver_may_be_at_fault(result):
        return driver_fix
    library = re.search(r"lib(?:nvinfer|nvonnxparser)\w*\.so\.(\d+)", failure)
    if _from_pip() or not machine.is_jetson or library is None:
        return _other_tensorrt(machine, _reinstall_tensorrt(machine))
    names = (f"libnvinfer{library[1]}", f"libnvinfer-plugin{library[1]}", f"libnvonnxparsers{library[1]}")
    return f"{_APT_AGAIN} {' '.join(names)}"


def _driver_may_be_at_fault(result: ProbeResult) -> bool:
    """Whether the CUDA driver may be the cause: a faulty one makes whatever loads it hang or crash."""
    return result.died or "libcuda.so" in result.failure


def _fix_dla(machine: ProbedMachine) -> str:
    """TensorRT for JetPack 6 is linked against the DLA compiler, which the board's driver contains up to JetPack 6."""
    if machine.info.l4t and not is_older(machine.info.l4t, "38"):
        return _other_tensorrt(machine, "pip install --upgrade 'tensorrt>=10.16,<11'")
    return (
        "on the host: docker run --runtime nvidia IMAGE"
        if machine.in_container
        else "sudo apt-get install -y nvidia-l4t-dla-compiler"
    )


def _install_cudnn(machine: ProbedMachine) -> str:
    return "sudo apt-get install -y libcudnn8" if machine.is_jetson else "pip install 'nvidia-cudnn-cu12<9'"


def _fix_pycuda(machine: ProbedMachine, result: ProbeResult, driver_fix: str) -> str:
    failure = result.failure
    if driver_fix and _driver_may_be_at_fault(result):
        return driver_fix
    if "libcurand.so" in failure and next(machine.root.glob("usr/local/cuda/lib64/libcurand.so.*"), None):
        return "echo /usr/local/cuda/lib64 | sudo tee /etc/ld.so.conf.d/cuda.conf && sudo ldconfig"
    if "libcurand.so.10:" in failure:
        return f"sudo apt-get install -y {'nvidia-jetpack' if machine.is_jetson else 'libcurand10'}"
    return _rebuild_pycuda("cuda")


def _rebuild_pycuda(toolkit: str) -> str:
    # pip caches the wheel it compiled, for whichever CUDA that was.
    build = f"pip install --force-reinstall --no-cache-dir --no-deps 'pycuda>={minimum_version('pycuda')}'"
    return f"PATH=/usr/local/{toolkit}/bin:$PATH {build}"


def _other_tensorrt(machine: ProbedMachine, otherwise: str) -> str:
    """On a Jetson pip's TensorRT hides the one of JetPack, which fits: the fix is to remove pip's."""
    return _remove_tensorrt() if machine.is_jetson and _from_pip() else otherwise


def _remove_tensorrt() -> str:
    return f"pip uninstall -y {' '.join(_from_pip())}"


def _reinstall_tensorrt(machine: ProbedMachine) -> str:
    pip = _from_pip()
    name = next((name for name in ("tensorrt", *(f"tensorrt-cu{cuda}" for cuda in _CUDAS)) if name in pip), "")
    if name:
        return f"pip install --force-reinstall {name}=={pip[name]}"
    return f"{_APT_AGAIN} python3-libnvinfer" if machine.is_jetson else extra_command("tensorrt")


def _one_tensorrt(machine: ProbedMachine, cudas: list[int]) -> str:
    """Remove both, since each overwrote files of the other, then install the one that the driver runs."""
    runs = _major(machine.driver.get("cuda") or "0")
    kept = next((cuda for cuda in cudas if cuda <= runs), cudas[-1])
    return _other_tensorrt(machine, f"{_remove_tensorrt()} && pip install 'tensorrt-cu{kept}>={minimum_version('tensorrt')}'")


def _cudas_of_tensorrt() -> list[int]:
    """The major versions of CUDA that the installed TensorRT packages of pip are for, newest first."""
    pip = _from_pip()
    return [cuda for cuda in _CUDAS if any(f"tensorrt-cu{cuda}{part}" in pip for part in _PARTS)]


def _from_pip() -> dict[str, str]:
    """pip's TensorRT packages, name → version, without those that apt installed."""
    found = {}
    for name in ("tensorrt", *(f"tensorrt{cuda}{part}" for cuda in ("-cu13", "-cu12", "-cu11", "") for part in _PARTS)):
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if not str(package.locate_file("")).startswith(_SYSTEM_PACKAGES):
            found[name] = package.version
    return found


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _release(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]
