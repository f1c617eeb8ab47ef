"""edge-resnet: a ResNet from its torch weights to predictions on a Jetson, a desktop GPU or a CPU.

    import edge_resnet as er

    er.build(depth=50, precision="int8", calibration="photos/", output="artifacts/r50")
    with er.load("artifacts/r50") as model:
        print(model.predict("cat.jpg").top[0].label)

Importing the package loads nothing but this file; each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edge_resnet.core import __version__

if TYPE_CHECKING:
    from edge_resnet.api import (
        benchmark,
        build,
        compile,  # noqa: A004 - the command's name
        evaluate,
        finetune,
        load,
        open_images,
        quantize,
        report,
        stream,
        train,
    )
    from edge_resnet.artifact.enginecache import EngineTuning
    from edge_resnet.artifact.folder import Artifact
    from edge_resnet.core.errors import (
        ArtifactError,
        BackendError,
        BudgetError,
        BuildError,
        CalibrationError,
        ConfigError,
        DataError,
        EdgeResnetError,
        ExportError,
        IncompatibleEngineError,
        MissingDependencyError,
        SourceError,
        WeightsError,
    )
    from edge_resnet.images.imageset import ImageSet
    from edge_resnet.measurement.accuracy import Evaluation
    from edge_resnet.measurement.bench.result import BenchResult
    from edge_resnet.network.training.job import NetworkChoice
    from edge_resnet.network.training.options import TrainOptions
    from edge_resnet.pipelines.model import Classification, Model
    from edge_resnet.quantization.recipes import RecipeOverrides
    from edge_resnet.runtime.postprocess import ClassScore
    from edge_resnet.streaming.counters import RunSummary
    from edge_resnet.streaming.records import Prediction
    from edge_resnet.studies.sweep.plan import SweepRequest

__all__ = [
    "Artifact",
    "ArtifactError",
    "BackendError",
    "BenchResult",
    "BudgetError",
    "BuildError",
    "CalibrationError",
    "ClassScore",
    "Classification",
    "ConfigError",
    "DataError",
    "EdgeResnetError",
    "EngineTuning",
    "Evaluation",
    "ExportError",
    "ImageSet",
    "IncompatibleEngineError",
    "MissingDependencyError",
    "Model",
    "NetworkChoice",
    "Prediction",
    "RecipeOverrides",
    "RunSummary",
    "SourceError",
    "SweepRequest",
    "TrainOptions",
    "WeightsError",
    "__version__",
    "benchmark",
    "build",
    "compile",
    "evaluate",
    "finetune",
    "load",
    "open_images",
    "quantize",
    "report",
    "stream",
    "train",
]

#: The module of each name that is neither a function of ``api`` nor an error.
_RECORDS = {
    "Artifact": "artifact.folder",
    "BenchResult": "measurement.bench.result",
    "ClassScore": "runtime.postprocess",
    "Classification": "pipelines.model",
    "EngineTuning": "artifact.enginecache",
    "Evaluation": "measurement.accuracy",
    "ImageSet": "images.imageset",
    "Model": "pipelines.model",
    "NetworkChoice": "network.training.job",
    "Prediction": "streaming.records",
    "RecipeOverrides": "quantization.recipes",
    "RunSummary": "streaming.counters",
    "SweepRequest": "studies.sweep.plan",
    "TrainOptions": "network.training.options",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edge_resnet' has no attribute {name!r}")
    if not name.endswith("Error"):
        import_module("edge_resnet.core.system").check_system()
    module = "core.errors" if name.endswith("Error") else _RECORDS.get(name, "api")
    value = getattr(import_module(f"edge_resnet.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
