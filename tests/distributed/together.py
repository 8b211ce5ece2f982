"""Several processes that run one command together, as torchrun or srun would start them."""

import logging
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gau_alpha.cli import main


class Ended(NamedTuple):
    """How a process ended, and what it wrote."""

    code: int | None
    output: str


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def torchrun(rank: int, processes: int) -> dict[str, str]:
    """Say what torchrun tells a process."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "TORCHELASTIC_RUN_ID": "test",
    }


def srun(rank: int, processes: int) -> dict[str, str]:
    """Say what srun tells a process."""
    return {
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NAME": "test",
        "SLURM_NODELIST": "localhost",
        "SLURM_NTASKS": str(processes),
        "SLURM_NTASKS_PER_NODE": str(processes),
        "SLURM_NODEID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
    }


def run_together(
    folder: Path,
    args: list[str],
    processes: int,
    launcher: Callable[[int, int], dict[str, str]] = torchrun,
    timeout: float = 120,
) -> list[Ended]:
    """Fork processes, which saves each the seconds of importing torch; end those that outlive the time limit."""
    folder.mkdir(parents=True, exist_ok=True)
    port, fork = free_port(), multiprocessing.get_context("fork")
    outputs = [folder / f"rank{rank}.txt" for rank in range(processes)]
    common = {"MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        fork.Process(target=_worker, args=(args, {**launcher(rank, processes), **common}, output))
        for rank, output in enumerate(outputs)
    ]
    for process in started:
        process.start()
    try:
        for process in started:
            process.join(timeout)
        return [Ended(process.exitcode, path.read_text()) for process, path in zip(started, outputs, strict=True)]
    finally:
        for process in started:
            process.kill()


def _worker(args: list[str], environment: dict[str, str], output: Path) -> None:
    os.environ |= environment
    sys.stdout = sys.stderr = output.open("w", buffering=1)
    for handler in logging.getLogger("lightning.pytorch").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)  # it holds on to the one that it met first
    code = main(args)
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    print(f"threads of gloo left: {sum('gloo' in name for name in threads)} of {len(threads)}")
    raise SystemExit(code)
