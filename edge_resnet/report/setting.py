"""Where and how it was measured, and what speaks against the numbers, as lines. Knows no page."""

from __future__ import annotations

from collections.abc import Iterator

from edge_resnet.bench.record import BenchResult
from edge_resnet.device.machine import DeviceInfo
from edge_resnet.report.record import Report

__all__ = ["environment", "results_of", "warnings_of"]


def environment(report: Report) -> list[tuple[str, str]]:
    """Name and value: machine, backends, versions, images, options."""
    devices = list(dict.fromkeys(_machine(result.device) for _, result in results_of(report)))
    versions = list(dict.fromkeys(_versions(result) for _, result in results_of(report)))
    modes = [f"{name}" for name in dict.fromkeys(result.rules for _, result in results_of(report))]
    found = [("Machine", line) for line in devices] + [("Versions", line) for line in versions]
    backends = dict.fromkeys(row.backend for row in report.rows)
    told = backends if len(backends) == 1 else [f"{row.backend} ({row.label})" for row in report.rows]
    found += [("Backend", ", ".join(told))]
    found += [("Rules", "; ".join(modes))] if modes else []
    found += [("Accuracy", report.setup.data), ("Calibration", report.setup.calibration)]
    found += list(report.setup.options.items())
    return [(name, value) for name, value in found if value]


def warnings_of(report: Report) -> list[str]:
    """Notes on the set-up, then what each measurement says against itself; the same words once, with whom they concern."""
    said: dict[str, list[str]] = {}
    for label, result in results_of(report):
        for warning in result.warnings:
            said.setdefault(warning, []).append(label)
    lines = [f"{', '.join(dict.fromkeys(labels))}: {warning}" for warning, labels in said.items()]
    return [*report.setup.notes, *lines]


def results_of(report: Report) -> Iterator[tuple[str, BenchResult]]:
    """Every benchmark with the label of what was measured."""
    for row in report.rows:
        if row.latency is not None:
            yield row.label, row.latency
        for result in row.batches:
            yield f"{row.label} in batches of {result.batch}", result


def _machine(device: DeviceInfo) -> str:
    memory = None if device.memory_total_mib is None else f"{device.memory_total_mib / 1024:.0f} GiB"
    jetpack = None if device.jetpack is None else f"JetPack {device.jetpack}"
    mode = None if device.power_mode is None else f"power mode {device.power_mode}"
    cores = f"{device.usable_cores} {'core' if device.usable_cores == 1 else 'cores'} of {device.cpu}"
    return ", ".join(part for part in (device.board, device.gpu, cores, memory, jetpack, mode, device.os) if part)


def _versions(result: BenchResult) -> str:
    return ", ".join(f"{name} {version}" for name, version in result.versions.items())
