"""Kills a run again and again, restarts it with ``auto_resume``, and compares it with one that was left alone.

    make drill                                                            20 SIGKILLs and 5 SIGTERMs
    python tests/distributed/preemption_stress.py --kills 2 --terms 1

Moments are drawn by stage: while tokenising (the cache is then thrown away first), while training, while a checkpoint
is being written, and while the model is being evaluated. What a killed process leaves tells whether it was met amid its
work; how often is counted. Ends with code 1 if anything differs or was lost.
"""

import argparse
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import yaml
from process_harness import differences, interrupt, logged_points, start_cli
from small_run import rows
from tiny_data import tiny_run, write_texts

from callbacks.extrapolation import ExtrapolationEvaluation
from gau_alpha.checkpoints import find_corruption, load_plain

STAGES = ("tokenising", "training", "saving", "evaluating")
EVERY = 20
"""Optimizer steps between checkpoints; twice as many between validations, three times between measurements."""


class MarkedEvaluation(ExtrapolationEvaluation):
    """Leaves a file while it measures."""

    def _evaluate(self, trainer, pl_module):
        mark = Path(trainer.default_root_dir) / "measuring"
        mark.touch()
        super()._evaluate(trainer, pl_module)
        mark.unlink()


def write_corpus(folder: Path) -> Path:
    return write_texts(folder, (90 + number % 7 for number in range(300)))


def write_config(folder: Path, corpus: Path, steps: int) -> Path:
    saver = {"save_last": True, "every_n_train_steps": EVERY, "enable_version_counter": False}
    measuring = {"every_n_train_steps": EVERY * 3, "length_ratios": [1, 4, 16], "max_documents": 40}
    config = tiny_run(
        folder,
        corpus,
        "drill",
        saver,
        accelerator="cpu",
        max_steps=steps,
        val_check_interval=EVERY * 2,
        check_val_every_n_epoch=None,
        limit_val_batches=5,
        accumulate_grad_batches=2,
        num_sanity_val_steps=0,
    )
    config["auto_resume"] = True
    config["trainer"]["callbacks"].append({"class_path": "preemption_stress.MarkedEvaluation", "init_args": measuring})
    config["model"]["config"] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "attention_key_size": 16,
        "num_hidden_layers": 2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    folder.mkdir(parents=True)
    path = folder / "drill.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def start(config: Path) -> subprocess.Popen[str]:
    return start_cli(["fit", "--config", str(config)], config.parent / "log.txt")


def reached(stage: str, folder: Path, before: set[Path]) -> bool:
    """Say whether a process is at a stage, by what it has left on the disk that was not there before."""
    run = folder / "run" / "drill"
    if stage == "tokenising":
        return any((folder / "cache").glob("*")) if (folder / "cache").exists() else False
    if stage == "saving":
        return any(set(run.glob("checkpoints/.*")) - before)
    if stage == "evaluating":
        return (folder / "measuring").exists()
    return any(set(run.glob("events.*")) - before)


def interrupt_at(config: Path, number: int, stage: str, dice: random.Random) -> str:
    """Start the command, send a signal at the stage, wait for the end; return what happened."""
    folder = config.parent
    if stage == "tokenising":
        shutil.rmtree(folder / "cache", ignore_errors=True)
    (folder / "measuring").unlink(missing_ok=True)
    before = set((folder / "run" / "drill").rglob("*")) if (folder / "run").exists() else set()
    # writing takes a few milliseconds; of the rest some are long
    delay = dice.random() * {"saving": 0.004, "tokenising": 0.05, "training": 0.8, "evaluating": 0.3}[stage]
    process = start(config)
    sent = interrupt(process, number, lambda: reached(stage, folder, before), delay)
    return f"{'ended' if sent else 'had ended'} with {process.returncode}"


def met(folder: Path) -> str:
    """Say amid what a process was killed, by what it has left."""
    if (folder / "measuring").exists():
        return "evaluating"
    if any((folder / "run" / "drill").glob("checkpoints/.*")):
        return "saving"
    return "tokenising" if any((folder / "cache").glob("*.unfinished-*")) else "training"


def saved_steps(folder: Path) -> list[int]:
    """Read the steps of all valid checkpoints."""
    paths = (folder / "run" / "drill" / "checkpoints").glob("*.ckpt")
    return [load_plain(path)["global_step"] for path in paths if find_corruption(path) is None]


def tables(folder: Path) -> dict[str, object]:
    paths = sorted((folder / "run" / "drill").glob("extrapolation/step_*/extrapolation.json"))
    return {path.parent.name: rows(path) for path in paths}


def compare(alone: Path, killed: Path, steps: int) -> list[str]:
    """List what differs between the two runs, and what was left behind."""
    faults = []
    last = Path("run/drill/checkpoints/last.ckpt")
    faults += [f"{name} differs" for name in differences(alone / last, killed / last)]
    if (step := load_plain(alone / last)["global_step"]) != steps:
        faults.append(f"the undisturbed run ended at step {step}: nothing was compared")
    if tables(alone) != tables(killed):
        faults.append(f"tables differ: {sorted(tables(alone))} and {sorted(tables(killed))}")
    if len(tables(alone)) != steps // (EVERY * 3):
        faults.append("the undisturbed run measured too little: nothing was compared")
    left = list(killed.rglob("*.gau-alpha-unfinished"))
    left += [path for path in (killed / "cache").iterdir() if ".unfinished-" in path.name]
    faults += [f"left behind: {path}" for path in left]
    first, second = (logged_points(folder / "run" / "drill") for folder in (alone, killed))
    faults += [
        f"TensorBoard shows of {tag} at step {step}: {first.get((tag, step))} and {second.get((tag, step))}"
        for tag, step in sorted(first.keys() | second.keys())
        if first.get((tag, step)) != second.get((tag, step))
    ]
    return faults


def drill(folder: Path, kills: int, terms: int, steps: int, seed: int = 0) -> list[str]:
    """Run the drill; return what is wrong."""
    corpus = write_corpus(folder / "corpus")
    alone, killed = (write_config(folder / name, corpus, steps) for name in ("alone", "killed"))
    if start(alone).wait(timeout=900):
        return ["the undisturbed run failed:\n" + (alone.parent / "log.txt").read_text()[-2000:]]
    dice = random.Random(seed)
    signals = [signal.SIGKILL] * kills + [signal.SIGTERM] * terms
    dice.shuffle(signals)
    faults, seen = [], Counter[str]()
    for turn, number in enumerate(signals):
        stage = STAGES[turn % len(STAGES)]
        before = max(saved_steps(killed.parent), default=0)
        happened = interrupt_at(killed, number, stage, dice)
        after = max(saved_steps(killed.parent), default=0)
        amid = met(killed.parent) if number == signal.SIGKILL else ""
        seen[f"amid {amid}"] += bool(amid)
        happening = f"{number.name} while {stage}: {happened}{amid and f' amid {amid}'}"
        print(f"{happening}; latest valid checkpoint: step {before} → {after}", flush=True)
        seen[f"{number.name} {happened.split(' with')[0]}"] += 1
        if after < before:
            faults.append(f"a checkpoint of step {before} was lost")
        reported = re.findall(r"saved .*interrupted.ckpt at step (\d+)", (killed.parent / "log.txt").read_text())
        if reported and after < int(reported[-1]):
            faults.append(f"step {reported[-1]} was reported as saved and is lost")
    if start(killed).wait(timeout=900):
        return [*faults, "the last start failed:\n" + (killed.parent / "log.txt").read_text()[-2000:]]
    print(dict(seen))
    if not seen["SIGKILL ended"]:
        faults.append("nothing was killed: nothing was tested")
    if kills >= 2 * len(STAGES) and not all(seen[f"amid {stage}"] for stage in STAGES):
        faults.append("not every stage was met: too little was tested")
    return faults + compare(alone.parent, killed.parent, steps)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--terms", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1200, help="of the run; fewer than the signals need end it early")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work, and to leave everything; default: temporary")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        faults = drill(args.folder or Path(temporary), args.kills, args.terms, args.steps, args.seed)
    fine = "bit-identical: weights, optimizer, schedule, tables and logged points; nothing lost, nothing left"
    print("\n".join(faults) or fine)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
