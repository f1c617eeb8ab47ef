"""Which backend ``auto`` selects on this machine, and whether OpenVINO works. Does not know why TensorRT may be unusable.

Both are probed in child processes, as TensorRT and PyCUDA are: a crash or a hang there is one line here.
"""

from __future__ import annotations

from edge_resnet.core.packages import extra_command, is_older, minimum_version
from edge_resnet.deployment.doctor.check import Check, is_importable
from edge_resnet.deployment.doctor.probe import ProbeResult, probe
from edge_resnet.device.machine import DeviceInfo

__all__ = ["check_backends"]

#: In the order in which they are shown.
_PRECISIONS = ("FP32", "FP16", "INT8")


def check_backends(info: DeviceInfo) -> list[Check]:
    """The checks of the group ``backends``; takes 21 seconds if everything hangs. Raises nothing."""
    results = probe("auto", "openvino") if is_importable("openvino") else probe("auto")
    return [_check_auto(results["auto"]), _check_openvino(info, results.get("openvino"))]


def _check_auto(result: ProbeResult) -> Check:
    if result.failure:
        return Check("auto", "problem", f"no backend can be selected: {result.failure}", "", "backends")
    detail = f"{result.facts['taken']}, the first that works of {', '.join(result.facts['order'].split())}"
    return Check("auto", "ok", detail, "", "backends")


def _check_openvino(info: DeviceInfo, result: ProbeResult | None) -> Check:
    if result is None:
        gain = "faster than onnxruntime here" if info.architecture == "x86_64" and info.has_int8_dot_product else "optional"
        return Check("openvino", "missing", f"not installed; {gain}", extra_command("openvino"), "backends")
    minimum = minimum_version("openvino")
    if result.failure:
        fix = f"pip install --force-reinstall 'openvino>={minimum}'"
        return Check("openvino", "problem", f"cannot be used: {result.failure}", fix, "backends")
    version = result.facts["version"]
    if is_older(version, minimum):
        fix = f"pip install --upgrade 'openvino>={minimum}'"
        return Check("openvino", "problem", f"{version} is older than {minimum}", fix, "backends")
    known = result.facts["precisions"].split()
    runs = [name for name in _PRECISIONS if name in known]
    # It runs every artifact: on a processor without half precision it computes FP16 as FP32.
    half = "" if "FP16" in known else "; FP16 as FP32"
    return Check("openvino", "ok", f"{version}, runs {', '.join(runs)}{half} on the CPU", "", "backends")
