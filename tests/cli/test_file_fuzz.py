"""More than 1,500 spoiled files: each ends well or in one message with code 2, soon; nothing is run that a file names.

``test_every_field_of_every_file`` takes its cases by rule from real files (see ``fuzzing.py``): a field that is new
tomorrow is spoiled, too. ``test_300_corruptions`` spoils the bytes of a checkpoint.
"""

import io
import json
import os
import pickle
import random
import shutil
import signal
import sys
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fuzzing
import pytest
import torch
import yaml
from fuzzing import HOSTILE, MARKER, Place
from tiny_data import tiny_run

from callbacks.extrapolation import ExtrapolationEvaluation
from gau_alpha import GAUAlphaFineTuning, GAUAlphaForMaskedLM, GAUAlphaModule
from gau_alpha.cli import main
from gau_alpha.extrapolation.calibration import Calibration
from gau_alpha.extrapolation.report import Report
from gau_alpha.extrapolation.result_cache import ResultCache
from gau_alpha.finetuning import GAUAlphaForSequenceClassification

SHARE = float(os.environ.get("FUZZ_SHARE", "0.25"))
"""Of the files that are spoiled field by field; `make drill` takes all."""

LONGEST = 10
"""Seconds of computing that a case may take; nearly all take less than one."""

QUIET = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
EVALUATION = ["--length_ratios", "1", "2", "--methods", "trained", "--max_documents", "2", "--output_dir", "out"]
CALIBRATION = ["--length_ratios", "1", "2", "--num_documents", "2", "--queries_per_document", "4"]

Way = Callable[[], int]
"""Opens a spoiled file, and returns the exit code."""


# ---- running a case ----


class TooLongError(BaseException):
    """Goes through whatever catches exceptions."""


@dataclass
class Faults:
    """Runs cases and collects what goes wrong.

    Attributes:
        capsys: Holds what is printed.
        unchanged: Folders in which no file may come or go.
        found: What went wrong.
    """

    capsys: Any
    unchanged: Sequence[Path]
    found: list[str] = field(default_factory=list)

    def run(self, name: str, way: Way) -> int | str | None:
        """Run a case and return its exit code, None if there was none."""
        before, begun = listing(*self.unchanged), time.process_time()
        self.capsys.readouterr()
        try:
            with stopped_after(20 * LONGEST):  # it may have to wait for a processor
                code = way()
        except SystemExit as ended:
            code = ended.code
        except (Exception, TooLongError) as error:  # what must not happen: all of them are shown at the end
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.found.append(f"{name}: {type(error).__name__}: {str(error)[:300]!r}, {place.filename}:{place.lineno}")
            return None
        spent, said = time.process_time() - begun, "".join(self.capsys.readouterr())
        messages = said.count("gau-alpha: error: ")
        # with code 1 a run tells that its loss is no finite number, which numbers of a stranger may lead to
        allowed = (0, 1, 2) if "finite" in said else (0, 2)
        changed = listing(*self.unchanged) ^ before
        wrong = {
            f"code {code}, {messages} messages": code not in allowed or messages != (code != 0),
            "a traceback was printed": "Traceback" in said,
            "a control character was printed": "\x1b" in said,
            f"it took {spent:.0f} s": spent > LONGEST,
            "what a file names was run": Path(MARKER).exists() or "evil_things" in sys.modules,
            f"files came or went: {changed}": bool(changed),
        }
        self.found += [f"{name}: {what}" for what, is_so in wrong.items() if is_so]
        Path(MARKER).unlink(missing_ok=True)
        sys.modules.pop("evil_things", None)
        return code


def listing(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


@contextmanager
def stopped_after(seconds: int) -> Iterator[None]:
    def stop(*_):
        raise TooLongError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def typed(*args: object, renewing: str = "") -> Way:
    """A command as it is typed, without the file or folder that it has left before."""

    def way() -> int:
        remove(renewing)
        return main([str(arg) for arg in args])

    return way


def called(function: Callable[[], object]) -> Way:
    """Python, where a ValueError is what a message is on the command line."""

    def way() -> int:
        try:
            function()
        except ValueError as error:
            print(f"gau-alpha: error: {str(error)!a}")
            return 2
        return 0

    return way


def remove(name: str) -> None:
    if name and Path(name).is_dir():
        shutil.rmtree(name)
    elif name:
        Path(name).unlink(missing_ok=True)


# ---- real files, and what opens them ----


@dataclass(frozen=True)
class File:
    """A real file.

    Attributes:
        content: Plain data.
        write: Writes such data where the ways look for it.
        ways: What opens it.
        chosen: Names the ways that read what stands at a place, those that are quick more often.
        count: Cases to draw; if it has more fields, one for each.
        left_out: Rules that do not concern it.
    """

    content: Any
    write: Callable[[Any], object]
    ways: dict[str, Way]
    chosen: Callable[[Place], Sequence[str]]
    count: int
    left_out: Sequence[str] = ()


def anywhere(*names: str) -> Callable[[Place], Sequence[str]]:
    return lambda place: names


def torch_file(path: str) -> Callable[[Any], object]:
    return lambda content: torch.save(content, path)


def json_file(path: str | Path) -> Callable[[Any], object]:
    return lambda content: Path(path).write_text(fuzzing.with_digits(json.dumps(content)))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working directory: it holds a hostile module, and lies beside a folder that nothing may be written to."""
    for name in ("here", "outside"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    Path("evil_things.py").write_text(HOSTILE)
    return tmp_path / "here"


@pytest.fixture
def trained(slow, here, corpus, monkeypatch) -> str:
    """A checkpoint amid an epoch, a schedule and what is logged, one of the two best; its config is ``tiny.yaml``."""
    saver = {"monitor": "validation/loss", "mode": "max", "save_top_k": 2, "enable_version_counter": False}
    settings = {"max_steps": 6, "log_every_n_steps": 3, "val_check_interval": 2, "limit_val_batches": 1}
    config = tiny_run(here, corpus, "first", saver, accelerator="cpu", num_sanity_val_steps=0, **settings)
    curve = {"every_n_train_steps": 100, "length_ratios": [1], "max_documents": 1}
    config["trainer"]["callbacks"].append(
        {"class_path": "callbacks.extrapolation.ExtrapolationEvaluation", "init_args": curve}
    )
    # it would measure for a second at the end of every run
    monkeypatch.setattr(ExtrapolationEvaluation, "_evaluate", lambda *args: None)
    config["model"]["config"]["num_hidden_layers"] = 1
    Path("tiny.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "tiny.yaml"]) == 0
    shutil.copy("run/first/checkpoints/epoch=0-step=4.ckpt", "real.ckpt")
    shutil.copytree("run", "kept")
    return "real.ckpt"


def checkpoint_parts(trained: str) -> dict[str, File]:
    """What describes a model and its run; and what is restored where training goes on, which takes its time."""

    def going_on() -> int:
        """Train on, in the folder of the run that left the real one."""
        remove("run")
        shutil.copytree("kept", "run")
        return main(["fit", "--config", "tiny.yaml", "--ckpt_path", "spoiled.ckpt"])

    named = ["--ckpt_path", "spoiled.ckpt"]
    start = ["--model.init_from", "spoiled.ckpt", "--trainer.max_steps", "1"]
    ways = {
        "fill-mask": typed("fill-mask", "--model", "spoiled.ckpt", "ab[MASK]d"),
        "convert": typed("convert", "spoiled.ckpt", "converted", renewing="converted"),
        "load": called(lambda: GAUAlphaModule.load_from_checkpoint("spoiled.ckpt")),
        "validate": typed("validate", *named, *QUIET),
        "test": typed("test", *named, *QUIET),
        "predict": typed("predict", *named, *QUIET, "--predictions.output", "p.jsonl", renewing="p.jsonl"),
        "extrapolate": typed("extrapolate", *named, *EVALUATION, renewing="out"),
        "calibrate": typed("calibrate", *named, *CALIBRATION, "--output", "c.json"),
        "start": typed("fit", "--config", "tiny.yaml", *start, *QUIET),
        "fit": going_on,
    }
    quick = (*("fill-mask", "convert", "load") * 10, *ways)
    ran = (*("convert",) * 25, "validate", "test", "predict", "extrapolate", "calibrate", "fit")
    loops = {"validate_loop": "validate", "test_loop": "test", "predict_loop": "predict"}
    content = torch.load(trained, weights_only=True)
    describing = {name: content[name] for name in ("state_dict", "hyper_parameters", "run")}
    restored = {name: value for name, value in content.items() if name not in describing}

    def among(others: dict[str, Any]) -> Callable[[Any], object]:
        write = torch_file("spoiled.ckpt")
        return lambda changed: write({**others, **changed} if isinstance(changed, dict) else changed)

    def description(place: Place) -> Sequence[str]:
        return ran if place[:1] == ("run",) else quick

    def restoring(place: Place) -> Sequence[str]:
        return [next((way for loop, way in loops.items() if loop in place), "fit")]

    return {
        "checkpoint": File(describing, among(restored), ways, description, 500, ("digits",)),
        "training state": File(restored, among(describing), ways, restoring, 0, ("digits",)),
    }


def checkpoint_with_a_head(trained: str) -> File:
    Path("train.jsonl").write_text("".join(f'{{"text": "ab{n}", "label": "{"xy"[n % 2]}"}}\n' for n in range(8)))
    config = yaml.safe_load(Path("tiny.yaml").read_text())
    config["model"]["head"] = "gau_alpha.finetuning.GAUAlphaForSequenceClassification"
    config["data"] = {
        "class_path": "datamodules.LabelledTextDataModule",
        "init_args": {
            "examples": {"class_path": "datamodules.SequenceExamples", "init_args": {"labels": ["x", "y"]}},
            "tokenizer": "datamodules.ByteTokenizer",
            "train": {"path": "train.jsonl"},
            "validation": {"path": "train.jsonl"},
            "train_length": 16,
            "batch_size": 2,
        },
    }
    saver = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"filename": "real"}}
    config["trainer"] |= {"callbacks": [saver], "logger": False, "default_root_dir": "headed"}
    config["trainer"] |= {"max_steps": -1, "max_epochs": 1, "val_check_interval": None}
    Path("headed.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "headed.yaml"]) == 0
    content = torch.load("headed/checkpoints/real.ckpt", weights_only=True)
    named = ["--ckpt_path", "spoiled_head.ckpt", *QUIET]
    ways = {
        "convert": typed("convert", "spoiled_head.ckpt", "converted", renewing="converted"),
        "load": called(lambda: GAUAlphaFineTuning.load_from_checkpoint("spoiled_head.ckpt")),
        "validate": typed("validate", *named),
        "predict": typed("predict", *named, "--predictions.output", "p.jsonl", renewing="p.jsonl"),
        "fit": typed("fit", "--config", "headed.yaml", *named, "--trainer.max_epochs", 2, "--trainer.max_steps", 5),
    }

    def write(changed: Any) -> None:
        torch.save({**content, **changed} if isinstance(changed, dict) else changed, "spoiled_head.ckpt")

    other = {name: content[name] for name in ("hyper_parameters", "run")}  # the rest is as in that without a head
    return File(other, write, ways, anywhere(*("convert", "load") * 12, *ways), 150, ("digits",))


def folder_files(trained: str) -> dict[str, File]:
    """What ``convert`` writes; a case that concerns one file finds the others sound."""
    assert main(["convert", trained, "folder"]) == 0
    start = ["--model.init_from", "folder", "--trainer.max_steps", "1"]
    ways = {
        "fill-mask": typed("fill-mask", "--model", "folder", "ab[MASK]d"),
        "convert": typed("convert", "folder", "back.ckpt", renewing="back.ckpt"),
        "load": called(lambda: GAUAlphaForMaskedLM.from_pretrained("folder")),
        "new head": called(lambda: GAUAlphaForSequenceClassification.from_pretrained("folder", labels=["x", "y"])),
        "start": typed("fit", "--config", "tiny.yaml", *start, *QUIET),
    }
    config, special, state = (
        f"folder/{name}" for name in ("config.json", "tokenizer_config.json", "training_state.ckpt")
    )
    texts = {path: Path(path).read_text() for path in (config, special)}

    def amid_sound_files(path: str, write: Callable[[Any], object]) -> Callable[[Any], object]:
        def write_it(content: Any) -> None:
            for name, text in texts.items():
                Path(name).write_text(text)
            write(content)

        return write_it

    def file(path: str, count: int, *names: str) -> File:
        return File(json.loads(texts[path]), amid_sound_files(path, json_file(path)), ways, anywhere(*names), count)

    return {
        "training_state.ckpt": File(
            torch.load(state, weights_only=True), torch_file(state), ways, anywhere("convert"), 0, ("digits",)
        ),
        "tokenizer_config.json": file(special, 30, "fill-mask"),
        "config.json": file(config, 200, *("fill-mask", "convert", "load", "new head") * 8, "start"),
    }


def folder_with_a_head() -> File:
    assert main(["convert", "headed/checkpoints/real.ckpt", "headed_folder", "--weights_only"]) == 0
    path = Path("headed_folder/config.json")
    ways = {
        "convert": typed("convert", "headed_folder", "back.ckpt", renewing="back.ckpt"),
        "load": called(lambda: GAUAlphaForSequenceClassification.from_pretrained("headed_folder")),
    }
    return File(json.loads(path.read_text()), json_file(path), ways, anywhere(*ways), 150)


def calibration(trained: str) -> File:
    assert main(["calibrate", "--ckpt_path", trained, *CALIBRATION, "--output", "real.json"]) == 0
    used = ["--methods", "trained_calibrated", "--calibrations", "spoiled.json"]
    ways = {
        "read": called(lambda: Calibration.read("spoiled.json")),
        "extrapolate": typed("extrapolate", "--ckpt_path", trained, *EVALUATION, *used, renewing="out"),
    }
    content = json.loads(Path("real.json").read_text())
    return File(content, json_file("spoiled.json"), ways, anywhere(*("read",) * 20, "extrapolate"), 100)


def results(trained: str, monkeypatch) -> dict[str, File]:
    """What an evaluation leaves, and what one leaves that was interrupted."""
    command = typed("extrapolate", "--ckpt_path", trained, *EVALUATION)
    remove("out")
    with monkeypatch.context() as patch:
        patch.setattr(ResultCache, "close", lambda self: None)
        assert command() == 0
    shutil.copytree("out", "interrupted")
    Path("beside").mkdir()
    shutil.copy(trained, "beside/last.ckpt")

    def show() -> None:
        report = Report.read("beside/extrapolation.json")
        for text in (report.json(), report.csv(), report.markdown(), report.latex(), report.html()):
            assert "\x1b" not in text

    ways = {"read": called(show), "card": typed("convert", "beside/last.ckpt", "converted", renewing="converted")}
    content = json.loads(Path("out/extrapolation.json").read_text())
    files = {"extrapolation.json": File(content, json_file("beside/extrapolation.json"), ways, anywhere(*ways), 200)}
    unfinished = Path("out/extrapolation.unfinished")
    identity = json.loads((unfinished / "identity.json").read_text())
    ways = {"read": called(lambda: ResultCache(unfinished, identity)), "extrapolate": command}
    measurement, *_ = sorted(path.name for path in unfinished.iterdir() if path.name != "identity.json")
    for name in ("identity.json", measurement):

        def write(content: Any, name: str = name) -> None:
            remove("out")
            shutil.copytree("interrupted", "out")
            json_file(unfinished / name)(content)

        content = json.loads((unfinished / name).read_text())
        files[f"unfinished/{name}"] = File(content, write, ways, anywhere(*("read",) * 15, "extrapolate"), 80)
    return files


def config_yaml() -> File:
    """The user's own: it may name classes of theirs, and files anywhere. What is too long a run is cut off."""
    content = yaml.safe_load(Path("tiny.yaml").read_text())
    content["trainer"]["default_root_dir"] = content["data"]["init_args"]["cache_dir"] = "mine"

    def write(changed: Any) -> None:
        Path("spoiled.yaml").write_text(fuzzing.with_digits(yaml.safe_dump(changed)))

    ways = {"fit": typed("fit", "--config", "spoiled.yaml", "--trainer.max_time", "00:00:00:02")}
    return File(content, write, ways, anywhere("fit"), 0, ("class", "outside"))


@pytest.mark.slow
def test_every_field_of_every_file(trained, here, corpus, capsys, monkeypatch):
    files = {
        **checkpoint_parts(trained),
        "checkpoint with a head": checkpoint_with_a_head(trained),
        **folder_files(trained),
        "config.json with a head": folder_with_a_head(),
        "calibration": calibration(trained),
        **results(trained, monkeypatch),
        "config.yaml": config_yaml(),
    }
    faults, dice, counts = Faults(capsys, [here.parent / "outside", corpus]), random.Random(0), Counter()
    for name, file in files.items():
        drawn = fuzzing.drawn(list(fuzzing.changes(file.content, file.left_out)), int(file.count * SHARE), dice)
        for place, rule, value in drawn:
            way = dice.choice(file.chosen(place))
            file.write(fuzzing.changed(file.content, place, value))
            faults.run(f"{name}: {'.'.join(map(str, place))}: {rule}: {way}", file.ways[way])
            counts.update(["all", rule])
    assert not faults.found, f"{len(faults.found)} of {counts['all']}\n" + "\n".join(faults.found)
    assert counts["all"] >= 1000
    assert min(counts.values()) >= 5, counts


# ---- bytes of a checkpoint ----


class Code:
    """Unpickled by a careless reader, it makes a folder."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def truncated(content, checkpoint, dice, target):
    return content[: dice.randrange(len(content))]


def flipped(content, checkpoint, dice, target):
    at = dice.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :]


def swapped(content, checkpoint, dice, target):
    weights = checkpoint["state_dict"]
    one, two = dice.sample(sorted(weights), 2)
    while weights[one].shape == weights[two].shape:
        one, two = dice.sample(sorted(weights), 2)
    return torch_bytes({**checkpoint, "state_dict": {**weights, one: weights[two], two: weights[one]}})


def key_missing(content, checkpoint, dice, target):
    weights = dict(checkpoint["state_dict"])
    del weights[dice.choice(sorted(weights))]
    return torch_bytes({**checkpoint, "state_dict": weights})


def part_missing(content, checkpoint, dice, target):
    part = dice.choice(["state_dict", "hyper_parameters"])
    return torch_bytes({name: value for name, value in checkpoint.items() if name != part})


def key_foreign(content, checkpoint, dice, target):
    weights = {**checkpoint["state_dict"], f"model.{dice.random()}": torch.ones(2)}
    return torch_bytes({**checkpoint, "state_dict": weights})


def code_in_state(content, checkpoint, dice, target):
    return torch_bytes({**checkpoint, "state_dict": {**checkpoint["state_dict"], "x": Code(target)}})


def code_in_hyper_parameters(content, checkpoint, dice, target):
    return torch_bytes({**checkpoint, "hyper_parameters": {**checkpoint["hyper_parameters"], "x": Code(target)}})


def plain_pickle(content, checkpoint, dice, target):
    return pickle.dumps({"state_dict": {}, "hyper_parameters": Code(target)})


def record_named(name):
    def spoil(content, checkpoint, dice, target):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name or str(target), bytes(1_000_000))
        return stream.getvalue()

    return spoil


KINDS = {
    truncated: 90,
    flipped: 110,
    swapped: 12,
    key_missing: 20,
    part_missing: 6,
    key_foreign: 20,
    code_in_state: 12,
    code_in_hyper_parameters: 12,
    plain_pickle: 6,
    record_named("archive/data.pkl"): 4,
    record_named("../../outside/data.pkl"): 4,
    record_named(""): 4,
}
# Most by the two that start quickest: all commands read by the same function.
COMMANDS = ("fit", "validate", "test", "predict", "extrapolate", "calibrate", *("convert", "fill-mask") * 27)


def torch_bytes(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def command(name, config):
    if name == "convert":
        return typed("convert", "spoiled.ckpt", "converted")
    if name == "fill-mask":
        return typed("fill-mask", "--model", "spoiled.ckpt", "ab[MASK]d")
    named = ["--ckpt_path", "spoiled.ckpt", "--trainer.logger", "false", "--trainer.default_root_dir", "."]
    return typed(name, *(["--config", config] if name == "fit" else []), *named)


@pytest.mark.slow
def test_300_corruptions(run, corpus, here, capsys):
    dice = random.Random(0)
    content, checkpoint = run.checkpoint.read_bytes(), torch.load(run.checkpoint, weights_only=True)
    faults = Faults(capsys, [here.parent / "outside", corpus, run.config.parent])
    kinds = [kind for kind, count in KINDS.items() for _ in range(count)]
    assert len(kinds) == 300
    for number, kind in enumerate(kinds):
        Path("spoiled.ckpt").write_bytes(kind(content, checkpoint, dice, here.parent / "outside/made"))
        name = COMMANDS[number % len(COMMANDS)]
        if faults.run(f"{number}: {kind.__name__}: {name}", command(name, run.config)) == 0:
            faults.found.append(f"{number}: {kind.__name__}: {name}: was taken for sound")
    assert not faults.found, "\n".join(faults.found)
    assert set(os.listdir(here.parent)) == {"here", "outside"}
