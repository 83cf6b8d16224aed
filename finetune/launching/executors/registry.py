"""The executor of a name: `local`, `slurm`, `ray` or `ray:ADDRESS`. Only the chosen one's packages are imported."""

from __future__ import annotations

from collections.abc import Callable

from finetune.config import FinetuneConfig
from finetune.launching.executors.protocol import EXECUTORS, Executor
from soup.errors import FinetuneError
from soup.support.extras import install_line

__all__ = ["executor_name", "open_executor"]


def open_executor(setting: str, config: FinetuneConfig) -> Executor:
    """Open the executor that a configuration or a command line names.

    Args:
        setting: `local`, `slurm`, `ray` or `ray:ADDRESS`.
        config: GPUs a job, jobs at once, what SLURM is asked for.

    Raises:
        FinetuneError: no such executor, or a package that it needs is missing.
    """
    name = executor_name(setting)
    try:
        executor_class = _executor_class(name)
    except ImportError as error:
        line = install_line(error.name or "", "finetune")
        raise FinetuneError(f"--executor {name} needs {error.name}: {line}") from error
    return executor_class(config, setting.partition(":")[2])


def executor_name(setting: str) -> str:
    """Give the executor's name alone, without an address.

    Raises:
        FinetuneError: no such executor.
    """
    name, colon, address = setting.partition(":")
    if name not in EXECUTORS or (colon and (name != "ray" or not address)):
        raise FinetuneError(f"--executor {setting}: no such executor. Expected local, slurm, ray or ray:ADDRESS.")
    return name


def _executor_class(name: str) -> Callable[[FinetuneConfig, str], Executor]:
    if name == "slurm":
        from finetune.launching.executors.slurm import SlurmExecutor

        return SlurmExecutor
    if name == "ray":
        from finetune.launching.executors.ray import RayExecutor

        return RayExecutor
    from finetune.launching.executors.local import LocalExecutor

    return LocalExecutor
