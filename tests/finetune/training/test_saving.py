"""What training publishes: in one step, with its stamp, and readable by whom the user's other files are."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file

from finetune.training.saving import publish


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_weights_may_be_read_by_whom_other_files_may(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        publish(
            tmp_path / "part",
            tmp_path / "out",
            {},
            lambda out: save_file({"w": torch.zeros(2)}, out / "model.safetensors"),
        )
    finally:
        os.umask(before)
    assert (tmp_path / "out" / "model.safetensors").stat().st_mode & 0o777 == mode
