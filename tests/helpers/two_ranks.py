"""One of two processes that train together, rank 0 on an image and rank 1 on text; torchrun tells the way to do it.

Says `rankN:equal` if three steps of both end in the weights that one process gets from both batches.
"""

from __future__ import annotations

import copy
import os
import sys
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.helpers.tiny_points import batch_of, noise, points_model, prompt_of

STEPS = 3
RATE = 0.05


def batches(model, rank):
    batch = (
        batch_of(model, [noise(64, 32, 0)], [prompt_of(1)]) if rank == 0 else batch_of(model, [], [prompt_of(0, "???")])
    )
    return dict(batch) | {"labels": batch["input_ids"].clone()}


def train(model, steps):
    learner = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=RATE)
    for _ in range(steps):
        learner.zero_grad()
        yield
        learner.step()


def alone(model, both):
    """What one process makes of both batches: the mean of their losses."""
    for _ in train(model, STEPS):
        (sum(model(**batch).loss for batch in both) / 2).backward()
    return model


def shard(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    for module in model.modules():
        if type(module).__name__ in ("CLIPEncoderLayer", "Qwen2DecoderLayer"):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def main(way):
    rank = int(os.environ["RANK"])
    model = points_model("clip", "clip").train()
    if way.endswith(("frozen", "remembered")):
        for vit in model.encoders:
            vit.requires_grad_(False)
    both = [batches(model, 0), batches(model, 1)]
    expected = dict(alone(copy.deepcopy(model), both).named_parameters())
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    part = both[rank]
    if way.endswith("remembered"):
        pixels = part.pop("pixel_values", torch.zeros(0, 3, 32, 32))
        with torch.no_grad():
            part["vision_features"] = model.encode(pixels)
    if way.endswith("checkpointed"):
        model.activation_checkpointing_enable()
    # Nothing is looked for that may be unused: whatever wants a gradient has to get one.
    several = shard(model) if way.startswith("fsdp") else DistributedDataParallel(model)
    for _ in train(several, STEPS):
        several(**part).loss.backward()
    tensors = dict((several.module if way.startswith("ddp") else several).named_parameters())
    for name, parameter in tensors.items():
        whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
        torch.testing.assert_close(
            whole, expected[name], rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
    print(f"rank{rank}:equal", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1])
