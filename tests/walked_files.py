"""Prints which of our files have functions that run in one training step, or in one evaluation: a line of JSON.

A program of its own: the profiler must see a process in which nothing was computed before.

    python tests/walked_files.py training FOLDER
    python tests/walked_files.py evaluation FOLDER
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.loops.optimization.automatic import _AutomaticOptimization
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

sys.path.insert(0, str(Path(__file__).parent / "distributed"))

from tiny_data import tiny_run, write_texts

import gau_alpha
from gau_alpha.cli import main

ROOT = Path(gau_alpha.__file__).parent.parent
OURS = tuple(str(ROOT / package) + "/" for package in ("gau_alpha", "datamodules", "callbacks"))


class Recorder:
    """Notes files whose functions are called while it is on; importing a file calls none of them."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}  # in the order in which they were first met

    def start(self) -> None:
        sys.setprofile(self._note)

    def stop(self) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OURS) and code.co_name != "<module>":
            self.files.setdefault(code.co_filename)


def around(owner: type, name: str, before: Callable[[Any], None], after: Callable[[Any], None]) -> None:
    """Call functions before and after a method, with the object it belongs to."""
    method = getattr(owner, name)

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        before(self)
        try:
            return method(self, *args, **kwargs)
        finally:
            after(self)

    setattr(owner, name, wrapped)


def walk(what: str, folder: Path) -> list[str]:
    """Run a small ``fit``, then perhaps ``extrapolate``, and name the files of the part that the page tells."""
    corpus = write_texts(folder / "corpus", range(87, 111))
    config = tiny_run(folder, corpus, "first", {"save_last": True}, accelerator="cpu", max_steps=3)
    config["data"]["init_args"]["validation_fraction"] = 0.5  # so that there are documents to resample
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    recorder = Recorder()
    if what == "training":
        # From fetching the second batch until its optimizer step is done; the first one may set things up.
        second = lambda loop: loop.global_step == 1  # noqa: E731
        around(_TrainingEpochLoop, "advance", lambda loop: second(loop) and recorder.start(), lambda loop: None)
        around(_AutomaticOptimization, "run", lambda loop: None, lambda loop: recorder.stop())
    assert main(["fit", "--config", str(folder / "tiny.yaml")]) == 0
    if what == "evaluation":
        # Lightning's test of one step.
        around(_EvaluationLoop, "_evaluation_step", lambda loop: recorder.start(), lambda loop: recorder.stop())
        checkpoint = folder / "run" / "first" / "checkpoints" / "last.ckpt"
        options = ["--methods", "softmax", "infoscale", "--length_ratios", "1", "2", "--output_dir", str(folder)]
        assert main(["extrapolate", "--ckpt_path", str(checkpoint), *options]) == 0
    return [Path(name).relative_to(ROOT).as_posix() for name in recorder.files]


if __name__ == "__main__":
    print(json.dumps(walk(sys.argv[1], Path(sys.argv[2]))))
