"""Settings that Lightning would take, or pass over in silence, though nothing good can come of it."""

import math
import os
from collections.abc import Mapping
from typing import Any

import torch

from gau_alpha.untrusted.limits import require_number, require_whole


def check_trainer(config: Mapping[str, Any]) -> None:
    """Refuse what would end in a traceback, or would not end.

    Args:
        config: The arguments of the trainer.

    Raises:
        ValueError: If one is out of range, or more processes are asked for than the CPU can serve.
    """
    devices: Any = config.get("devices")
    accelerator = config.get("accelerator", "auto")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    most = max(8, 4 * (os.cpu_count() or 1))
    number = int(devices) if isinstance(devices, int) or str(devices).isdecimal() else 1
    if on_cpu and number > most:
        raise ValueError(
            f"trainer.devices {devices} asks for as many processes on a machine of {os.cpu_count()} CPU cores: "
            f"at most {most} are started. Each of them uses all cores anyway; 1 is a good number."
        )
    for name in ("num_nodes", "accumulate_grad_batches", "check_val_every_n_epoch"):
        if config.get(name) is not None:
            require_whole(f"trainer.{name}", config[name])
    if isinstance(interval := config.get("val_check_interval"), int | float):
        require_number("trainer.val_check_interval", interval, above=0)
    if config.get("gradient_clip_val") is not None:
        require_number("trainer.gradient_clip_val", config["gradient_clip_val"], least=0, most=math.inf)


def check_environment(command: str, environment: Mapping[str, str]) -> None:
    """Refuse settings in environment variables, as LightningCLI can read them: here they would do nothing.

    Args:
        command: What is run.
        environment: Variables by name.

    Raises:
        ValueError: If there is one for this command: names it, and the option.
    """
    start = f"PL_{command.upper()}__"
    for name in sorted(environment):
        if name.startswith(start):
            option = name.removeprefix(start).lower().replace("__", ".")
            raise ValueError(
                f"The environment has {name}, and settings are not read from there: a run would depend on what nobody "
                f"sees. Unset it, and write --{option} on the command line or {option} in a YAML."
            )
