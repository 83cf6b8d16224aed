"""Several devices for one model: which accelerate configuration, and the environment that it asks for.

Jobs are started by torchrun. The variables that `accelerate launch` would set for its processes are set here by
accelerate's own code, from its own files, before the first tensor is placed.
"""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from soup.errors import FinetuneError
from soup.support.text import did_you_mean

__all__ = ["configuration_path", "environment_of", "is_first", "join", "world_size"]

SHIPPED = Path(__file__).parents[1] / "configs" / "accelerate"
OURS = ("ACCELERATE_USE_FSDP", "FSDP_", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_", "ACCELERATE_CONFIG_DS_")


def world_size() -> int:
    """Give how many processes train this model together, as torchrun has it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the process that writes, of those that train this model together."""
    return os.environ.get("RANK", "0") == "0"


def configuration_path(parallel: str) -> Path:
    """Give the accelerate configuration of that name, or at that path.

    Raises:
        FinetuneError: neither.
    """
    known = {path.stem: path for path in SHIPPED.glob("*.yaml")}
    path = known.get(parallel, Path(parallel))
    if not path.is_file():
        raise FinetuneError(f"parallel: {parallel} is no file and no name.{did_you_mean(parallel, known)}")
    return path


def environment_of(parallel: str) -> dict[str, str]:
    """Give the variables by which accelerate's launcher would ask for FSDP or DeepSpeed; none for plain data parallel.

    Raises:
        FinetuneError: a configuration that accelerate does not take.
    """
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    path = configuration_path(parallel)
    arguments = launch_command_parser().parse_args(["--config_file", str(path), "--main_process_port", "0", "job"])
    kind = _read_into(path, arguments)
    if kind == "FSDP":
        variables = prepare_multi_gpu_env(arguments)
    elif kind == "DEEPSPEED":
        variables = prepare_deepspeed_cmd_env(arguments)[1]
    else:
        return {}
    return {name: value for name, value in variables.items() if name.startswith(OURS)}


def join(parallel: str) -> None:
    """Set this process's environment for several devices; one process alone is left as it is.

    Raises:
        FinetuneError: the configuration can't be had, or what it asks for is not installed or has no device.
    """
    variables = environment_of(parallel)
    if world_size() == 1 or not variables:
        return
    import torch
    from accelerate.utils import is_deepspeed_available

    if "ACCELERATE_USE_DEEPSPEED" in variables and not is_deepspeed_available():
        raise FinetuneError(f"parallel: {parallel} needs DeepSpeed: pip install deepspeed")
    if not torch.accelerator.is_available():
        raise FinetuneError(f"parallel: {parallel} shards over GPUs, and there is none here; ddp needs none")
    os.environ.update(variables)


def _read_into(path: Path, arguments: Namespace) -> str:
    """Fill the launcher's arguments from the file, as the launcher itself does; gives the kind of parallel."""
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        config = load_config_from_file(str(path))
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise FinetuneError(f"{path}: not an accelerate configuration.\n{error}") from error
    kind = str(getattr(config.distributed_type, "value", config.distributed_type))
    arguments.use_fsdp, arguments.use_deepspeed = kind == "FSDP", kind == "DEEPSPEED"
    version = config.fsdp_config.get("fsdp_version", 1)
    if kind == "FSDP" and version != 2:
        raise FinetuneError(f"{path}: fsdp_version: expected 2, found {version}, which can't mix frozen and trained.")
    for name, value in {**config.fsdp_config, **config.deepspeed_config}.items():
        setattr(arguments, name, value)
    arguments.deepspeed_fields_from_accelerate_config = ",".join(config.deepspeed_config)
    arguments.mixed_precision = arguments.dynamo_backend = "no"  # the precision is set by our own settings
    arguments.num_processes, arguments.num_machines = world_size(), 1
    return kind
