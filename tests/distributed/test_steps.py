"""However a step is cut into processes and batches, it is the step of the mean over all its targets."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow


def step(tmp_path, processes, batch_size, accumulate, strategy):
    path = tmp_path / f"{processes}-{batch_size}-{accumulate}-{strategy}.pt"
    arguments = [Path(__file__).with_name("step.py"), processes, batch_size, accumulate, path, strategy]
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [*launcher, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(path, weights_only=True)


@pytest.mark.slow
def test_one_two_and_four_pieces_make_the_same_step(tmp_path):
    whole = step(tmp_path, 1, 8, 1, "auto")
    for cut in ((2, 4, 1, "ddp"), (2, 2, 2, "ddp"), (1, 4, 2, "auto"), (2, 4, 1, "fsdp"), (2, 2, 2, "fsdp")):
        pieces = step(tmp_path, *cut)
        assert pieces.keys() == whole.keys()
        for name, tensor in whole.items():
            torch.testing.assert_close(
                pieces[name], tensor, atol=2e-6, rtol=0, msg=lambda m, n=name, c=cut: f"{c} {n}: {m}"
            )
