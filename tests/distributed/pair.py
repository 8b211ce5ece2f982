"""Starts processes that train together, and hears what each of them has to say."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple


def start(script: str, *arguments: object, processes: int = 2, **environment: str) -> list[subprocess.Popen[str]]:
    """Start a script as processes that Lightning takes for those of one node; their output is piped."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    layout = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "WORLD_SIZE": str(processes)}
    return [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)],
            env={**os.environ, **layout, **environment, "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


class Ended(NamedTuple):
    """What is left of a process."""

    returncode: int
    output: str
    errors: str


def ended(processes: list[subprocess.Popen[str]], timeout: float = 60) -> list[Ended]:
    """Wait for processes to end; none outlives the time."""
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
    codes = [one.returncode for one in all_ended]
    assert not any(codes), f"{codes}\n" + "\n".join(one.errors[-3000:] for one in all_ended)
    return [json.loads(one.output.splitlines()[-1]) for one in all_ended]
