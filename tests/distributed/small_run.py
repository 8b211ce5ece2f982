"""A small run of which tests start many: its config, and what it leaves."""

import json
from pathlib import Path
from typing import Any

import yaml
from tiny_data import tiny_run, write_texts

MEASURED = ("seconds", "tokens_per_second", "peak_memory_bytes")
RATIOS = ["1", "4", "8"]
MEASURING = {
    "class_path": "callbacks.extrapolation.ExtrapolationEvaluation",
    "init_args": {
        "every_n_train_steps": 4,
        "length_ratios": list(map(int, RATIOS)),
        "methods": ["trained", "infoscale"],
        "tokens_per_batch": 128,
        "max_tokens": None,
    },
}


def write_corpus(folder: Path, documents: int = 12) -> Path:
    return write_texts(folder, (80 + 3 * number for number in range(documents)))


def write_config(folder: Path, corpus: Path, callbacks: list[dict[str, Any]] = (), **trainer: Any) -> Path:  # type: ignore[assignment]
    """Write ``run.yaml``: eight steps, a checkpoint every second, nothing of devices and strategy."""
    saver = {"save_last": True, "every_n_train_steps": 2, "save_top_k": -1}
    config = tiny_run(folder, corpus, "one", saver, max_steps=8, limit_val_batches=3, num_sanity_val_steps=0)
    config["trainer"]["callbacks"] += callbacks
    config["trainer"] |= trainer
    config["data"]["init_args"]["validation_fraction"] = 0.5
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    """Read a table without what depends on the clock."""
    found = json.loads(path.read_text())["rows"]
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in found]


def on_cpu(file: str, devices: int) -> list[str]:
    """Use a shipped file for GPUs on a CPU."""
    options = ["--trainer", file, "--trainer.accelerator", "cpu", "--trainer.devices", str(devices)]
    return [*options, "--trainer.precision", "32-true"]


def extrapolate(run: Path, folder: Path) -> list[str]:
    """Measure a run's last checkpoint as ``MEASURING`` does while it trains."""
    options = ["--methods", "trained", "infoscale", "--length_ratios", *RATIOS, "--tokens_per_batch", "128"]
    return ["extrapolate", "--ckpt_path", str(run / "checkpoints/last.ckpt"), *options, "--output_dir", str(folder)]


def validation_results(output: str) -> dict[str, float]:
    """The names and numbers that Lightning prints, however wide it takes the terminal for."""
    found = [line.replace("│", " ").split() for line in output.splitlines() if "validation/" in line]
    return {name: float(value) for name, value in found}
