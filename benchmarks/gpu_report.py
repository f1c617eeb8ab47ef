"""All that needs an NVIDIA GPU, one after another, each one's output in a file: the self-test, the tests, the benchmark.

    python benchmarks/gpu_report.py --artifacts DIR [--out gpu-report]       (make gpu ARTIFACTS=DIR OUT=gpu-report)

DIR holds resnet18-int8 and resnet50-int8, as `edge-resnet build --depth 18 --int8` makes them. OUT gets selftest.txt and .json,
tests.txt, benchmark.txt and .json, and engines/, which a second run uses again. Needs pytest, and no torch. The exit code is 1 if
any of the three failed, or if there is no GPU; a failure does not stop the next one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from edge_resnet.core.errors import BackendError
from edge_resnet.device.gpu import first_gpu

REPO = Path(__file__).resolve().parents[1]
NETWORKS = ("resnet18-int8", "resnet50-int8")


def main() -> int:
    """Check what is needed, run the three, and say how each ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--artifacts", type=Path, required=True, metavar="DIR", help="holds resnet18-int8 and resnet50-int8")
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    artifacts, out = arguments.artifacts.resolve(), arguments.out.resolve()
    try:
        print(first_gpu().name, flush=True)
    except BackendError as error:
        print(f"nothing is measured: {error.message}", file=sys.stderr)
        return 1
    absent = [name for name in NETWORKS if not (artifacts / name / "manifest.json").is_file()]
    if absent:
        print(f"nothing is measured: {artifacts} does not hold {' and '.join(absent)}", file=sys.stderr)
        return 1
    (out / "engines").mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "EDGE_RESNET_GPU_ARTIFACTS": str(artifacts),
        "EDGE_RESNET_GPU_WORK": str(out / "engines"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(REPO), os.environ.get("PYTHONPATH")))),
    }
    codes = {name: run(command, out / f"{name}.txt", environment) for name, command in commands(artifacts, out).items()}
    for name, code in codes.items():
        print(f"{name}: {'passed' if code == 0 else f'exit code {code}'}, in {out / name}.txt")
    return int(any(codes.values()))


def commands(artifacts: Path, out: Path) -> dict[str, list[str]]:
    """Name of each part → its arguments for Python."""
    chosen = [str(artifacts / name) for name in NETWORKS]
    isolated = ["-c", os.devnull, "--rootdir", str(REPO), "--confcutdir", "tests/gpu", "-p", "no:cacheprovider", "-rs"]
    measured = ["--artifacts", str(artifacts), "--work", str(out / "engines"), "--json", str(out / "benchmark.json")]
    return {
        "selftest": ["-m", "edge_resnet", "selftest", "--full", *chosen, "--json", str(out / "selftest.json"), "--force"],
        "tests": ["-m", "pytest", *isolated, "-m", "gpu", "tests/gpu"],
        "benchmark": ["benchmarks/gpu.py", *measured],
    }


def run(command: list[str], output: Path, environment: dict[str, str]) -> int:
    """Run Python with these arguments, show what it prints and write it to ``output``. Returns its exit code."""
    with (
        output.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            [sys.executable, *command],
            cwd=REPO,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as child,
    ):
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            file.write(line)
            file.flush()
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
