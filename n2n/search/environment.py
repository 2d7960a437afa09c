"""What a run ran on, so that its seconds can be read later."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from n2n.distill.probe import Probed
from n2n.networks.latency import processor

PACKAGES = ("n2n", "torch", "numpy", "gymnasium", "safetensors", "networkx")


def environment(seed: int, device: str, probed: Probed | None = None) -> dict[str, Any]:
    """Versions, processor, threads, what was measured to choose them, device and seed, as JSON values."""
    cuda = torch.cuda.get_device_name(0) if device.startswith("cuda") and torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "probe": None if probed is None else probed.to_json(),
        "device": device,
        "gpu": cuda,
        "seed": seed,
        "packages": {name: package_version(name) for name in PACKAGES},
    }


def package_version(name: str) -> str | None:
    """The version of an installed package; None where there is no such one."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
