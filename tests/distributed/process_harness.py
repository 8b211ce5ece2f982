"""Runs in processes of their own: started alone or together, interrupted at a moment, waited for, and compared.

- ``run_together`` forks processes that run one command, as torchrun or srun would start them, or one ``alone``.
- ``start_scripts`` starts a script of this folder as the processes of one node; ``heard`` is what they print.
- ``start_cli`` starts one command; ``interrupt`` sends it a signal once something has happened.
- ``SendSignal``, named in a config, lets a process interrupt itself at an exact moment of a step.
- ``holding`` has another process hold a lock.
- ``differences`` compares what two runs have saved, ``logged_points`` reads what TensorBoard shows of one.
"""

import json
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gau_alpha.checkpoints import read_checkpoint
from gau_alpha.checkpoints.lock import Lock
from gau_alpha.cli import main

STATE = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "schedule")
"""What of a checkpoint must be bit-identical in a run that was interrupted."""

CLOCK = ("extrapolation/seconds", "extrapolation/share_of_time")
"""Scalars that the clock decides."""


class Ended(NamedTuple):
    """How a process ended, and what it wrote."""

    code: int | None
    output: str
    errors: str = ""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def alone(rank: int, processes: int) -> dict[str, str]:
    """Tell a process nothing of others."""
    assert processes == 1
    return {}


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


@contextmanager
def holding(path: Path) -> Iterator[int | None]:
    """Have another process hold a lock; it is killed at the end. Yields its number."""
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    process = fork.Process(target=_hold, args=(path, ready))
    process.start()
    assert ready.wait(30)
    try:
        yield process.pid
    finally:
        process.kill()
        process.join()


def _hold(path: Path, ready: Any) -> None:
    lock = Lock(path)
    lock.acquire("")
    ready.set()
    time.sleep(600)


def start_scripts(script: str, *arguments: object, processes: int = 2) -> list[subprocess.Popen[str]]:
    """Start a script as processes that Lightning takes for those of one node; their output is piped."""
    layout = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(processes),
    }
    return [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)],
            env={**os.environ, **layout, "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


def ended(processes: list[subprocess.Popen[str]], timeout: float = 60) -> list[Ended]:
    """Wait for processes whose output is piped; none outlives the time."""
    deadline = time.monotonic() + timeout
    try:
        said = [process.communicate(timeout=deadline - time.monotonic()) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [Ended(process.returncode, *one) for process, one in zip(processes, said, strict=True)]


def heard(processes: list[subprocess.Popen[str]], timeout: float = 60) -> list[dict[str, Any]]:
    """The last line of each process, which is JSON."""
    all_ended = ended(processes, timeout)
    codes = [one.code for one in all_ended]
    assert not any(codes), f"{codes}\n" + "\n".join(one.errors[-3000:] for one in all_ended)
    return [json.loads(one.output.splitlines()[-1]) for one in all_ended]


def start_cli(args: Iterable[str], log: Path, **options: Any) -> subprocess.Popen[str]:
    """Start a command that finds the callbacks of this folder; what it writes is appended to a file."""
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "gau_alpha.cli", *args],
            **{"stdout": output, "stderr": subprocess.STDOUT, "text": True, **options},
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": paths},
        )


def interrupt(process: subprocess.Popen[str], number: int, reached: Callable[[], bool], delay: float = 0.0) -> bool:
    """Send a process a signal some time after something has happened, and wait for its end.

    Returns:
        Whether it was sent; not if the process ended before.
    """
    while process.poll() is None and not reached():
        time.sleep(0.0005)
    time.sleep(delay)
    sent = process.poll() is None
    if sent:
        process.send_signal(number)
    process.wait(timeout=120)
    return sent


class SendSignal(Callback):
    """Sends its own process a signal at a moment of a step.

    Args:
        number: The signal.
        step: Optimizer step, counted from 1.
        moment: ``in`` the step, amid it; ``validating`` after it; ``after`` it, when the next batch begins.
        ranks: Processes that are sent it; all if None.
        group: Whether workers get it, too, as by Ctrl-C in a terminal; the process must have a group of its own.
    """

    def __init__(
        self, number: int, step: int, moment: str = "in", ranks: list[int] | None = None, group: bool = False
    ) -> None:
        self.number, self.step, self.moment, self.ranks, self.group = number, step, moment, ranks, group

    def _send(self, trainer, moment, step):
        mine = self.ranks is None or trainer.global_rank in self.ranks
        if mine and (self.moment, self.step) == (moment, step) and not trainer.sanity_checking:
            self.step = -1  # once, though a step may have several batches
            (os.killpg if self.group else os.kill)(os.getpid(), self.number)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self._send(trainer, "in", trainer.global_step + 1)

    def on_validation_start(self, trainer, pl_module):
        self._send(trainer, "validating", trainer.global_step)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._send(trainer, "after", trainer.global_step)


def send_signal(
    number: int, step: int, moment: str = "in", ranks: list[int] | None = None, group: bool = False
) -> dict[str, Any]:
    """Name ``SendSignal`` in a config."""
    arguments = {"number": int(number), "step": step, "moment": moment, "ranks": ranks, "group": group}
    return {"class_path": f"{__name__}.SendSignal", "init_args": arguments}


def same(one: object, two: object) -> bool:
    """Whether plain data and tensors are equal to the last bit."""
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def differences(one: Path, two: Path) -> list[str]:
    """Name what of ``STATE`` is not bit-identical in two checkpoints."""
    checkpoints = read_checkpoint(one), read_checkpoint(two)
    return [name for name in STATE if not same(*(checkpoint[name] for checkpoint in checkpoints))]


def logged_points(run: Path) -> dict[tuple[str, int], list[float]]:
    """Read what TensorBoard shows, by tag and step: scalars, 0 where the clock decides, and pictures' numbers of bytes.

    A point that was logged twice and not purged is there twice.
    """
    board = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0}).Reload()
    found: dict[tuple[str, int], list[float]] = {}
    for tag in board.Tags()["scalars"]:
        for event in board.Scalars(tag):
            found.setdefault((tag, event.step), []).append(0.0 if tag in CLOCK else event.value)
    for tag in board.Tags()["images"]:
        for event in board.Images(tag):
            found.setdefault((tag, event.step), []).append(len(event.encoded_image_string))
    return found
