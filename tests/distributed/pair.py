"""Starts processes that train together, and hears what each of them has to say."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any


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


def heard(processes: list[subprocess.Popen[str]], timeout: float = 60) -> list[dict[str, Any]]:
    """The last line of each process, which is JSON; none outlives the time."""
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert not any(codes), f"{codes}\n" + "\n".join(errors[-3000:] for _, errors in outputs)
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]
