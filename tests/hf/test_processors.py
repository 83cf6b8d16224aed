"""A processor is opened by a process that has imported nothing of transformers yet, with torchvision and without."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.vlm_families import save_family


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "llava_onevision"])
@pytest.mark.slow
def test_a_fresh_process_opens_a_processor_that_takes_videos_too(kind, tmp_path):
    save_family(kind, tmp_path / "model", 0)
    code = (
        "import sys; from soup.hf.processors import open_processor; print(type(open_processor(sys.argv[1])).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "model"], capture_output=True, text=True, check=False)
    assert done.stdout.lower().replace("_", "").strip() == kind.replace("_", "") + "processor", done.stderr
