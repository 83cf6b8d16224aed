"""What torch computes on."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["count_gpus", "torch_device"]

DEVICES = Path("/dev")
GPU_FILES = ("nvidia*", "nvhost*", "nvmap", "nvgpu*", "kfd", "dxg")
"""Of which a driver of NVIDIA's or AMD's has some: also on a Jetson, and in Linux on Windows."""


def torch_device() -> str:
    """Return where models run in this process: `cuda`, `mps` or `cpu`."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def count_gpus() -> int:
    """Count the GPUs that torch sees; where Linux has no driver of any, torch is not imported, which takes a second."""
    if sys.platform == "linux" and not any(any(DEVICES.glob(pattern)) for pattern in GPU_FILES):
        return 0
    import torch

    return torch.cuda.device_count()
