"""``fit`` with its callback, and ``extrapolate``, through the command line: the GPU's table is the CPU's."""

import json
import subprocess
import sys

import pytest


def run(*arguments, folder):
    done = subprocess.run(
        [sys.executable, "-m", "gau_alpha.cli", *map(str, arguments)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_fit_and_extrapolate(tmp_path, device, note):
    pytest.importorskip("jsonargparse", reason="the command line needs jsonargparse")
    pytest.importorskip("datasets", reason="the data module needs datasets")
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    short = ["--trainer.max_steps", 60, "--trainer.accelerator", accelerator, "--trainer.devices", 1]
    run("fit", "--config", "demo.yaml", "--trainer.logger.version", "it", *short, folder=tmp_path)
    checkpoint = tmp_path / "runs/demo/it/checkpoints/last.ckpt"
    tables = {}
    for where in (accelerator, "cpu"):
        run(
            "extrapolate", "--ckpt_path", checkpoint, "--methods", "softmax", "infoscale", "windowed", "rerope",
            "--length_ratios", 1, 4, 16, "--max_tokens", 8192, "--trainer.accelerator", where,
            "--output_dir", tmp_path / where / "table", folder=tmp_path,
        )  # fmt: skip
        rows = json.loads((tmp_path / where / "table/extrapolation.json").read_text())["rows"]
        tables[where] = {(row["method"], row["length"]): row["loss"] for row in rows}
    assert tables[accelerator].keys() == tables["cpu"].keys()
    for key, loss in tables["cpu"].items():
        note("method and length | loss, nats | on the CPU", key, f"{tables[accelerator][key]:.4f}", f"{loss:.4f}")
        assert tables[accelerator][key] == pytest.approx(loss, abs=5e-3)
