"""Every ``fit`` of the command line has a guard."""

import math
import re
import shlex
import subprocess
import sys

import torch

from callbacks.nonfinite import Guard
from gau_alpha.checkpoints import read_checkpoint
from gau_alpha.cli import main
from gau_alpha.cli.lightning import GAUAlphaCLI

# A rate at which the second step meets weights that no product of is finite.
DIVERGING = [
    "--model.optimizer.learning_rate",
    "1e30",
    "--model.schedule.class_path",
    "Linear",
    "--trainer.gradient_clip_val",
    "1",
]


def test_a_run_that_diverges_ends_in_one_message_that_says_how_to_see_it_again(run, tmp_path, capfd):
    options = ["--trainer.logger", "false", "--trainer.callbacks", "[]", "--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", "--config", str(run.config), *DIVERGING, *options]) == 1
    error = capfd.readouterr().err
    assert re.search(r"error: Optimizer step \d was skipped: the (loss|gradient) is not finite", error)
    assert "Traceback" not in error
    command = shlex.split(next(line for line in error.splitlines() if line.startswith("  python -c")))
    done = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True, timeout=60, check=True)
    losses, gradient = re.fullmatch(r"Rerun\(losses=\[(.*)\], gradient_norm=(.*)\)\n", done.stdout).groups()
    assert not (math.isfinite(float(losses)) and math.isfinite(float(gradient)))
    (weights,) = (tmp_path / "not_finite").rglob("weights.ckpt")
    assert all(x.isfinite().all() for x in read_checkpoint(weights)["state_dict"].values() if torch.is_tensor(x))


def test_a_guard_of_ones_own_takes_its_place(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(GAUAlphaCLI, "_run_subcommand", lambda self, name: seen.append(self.trainer.callbacks))
    for more in ([], ["--trainer.callbacks+", "callbacks.nonfinite.Guard", "--trainer.callbacks.max_skips", "3"]):
        assert main(["fit", "--config", str(run.config), "--trainer.logger.save_dir", str(tmp_path), *more]) == 0
    limits = [[x.max_skips for x in callbacks if isinstance(x, Guard)] for callbacks in seen]
    assert limits == [[0], [3]]
