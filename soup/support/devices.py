"""What torch computes on."""

from __future__ import annotations

__all__ = ["torch_device"]


def torch_device() -> str:
    """Return where models run in this process: `cuda`, `mps` or `cpu`."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
