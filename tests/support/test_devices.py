"""GPUs are counted without torch where no driver of any is here."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from soup.support import devices
from soup.support.devices import count_gpus


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A stand-in for /dev, and a torch that sees three GPUs."""
    monkeypatch.setattr(devices, "DEVICES", tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    return tmp_path


@pytest.mark.parametrize("name", ["nvidia0", "nvidiactl", "kfd", "dxg", "nvmap", "nvhost-gpu"])
def test_torch_is_asked_where_a_driver_has_a_file(files, name):
    (files / name).touch()
    assert count_gpus() == 3


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone is known to have such files")
def test_without_a_driver_there_are_none(files):
    (files / "null").touch()
    assert count_gpus() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone is known to have such files")
def test_no_torch_is_imported_to_count_none(tmp_path):
    code = (
        "import sys; from pathlib import Path; from soup.support import devices\n"
        "devices.DEVICES = Path(sys.argv[1])\n"
        "sys.exit(devices.count_gpus() or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
