"""More than 1,000 spoiled files: each ends well or in one message with code 2, soon; nothing is run that a file names.

The cases come by rule from real files (see ``fuzzing.py``): a field that is new tomorrow is spoiled, too.
"""

import json
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
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

from gau_alpha import GAUAlphaForMaskedLM, GAUAlphaModule
from gau_alpha.cli import main
from gau_alpha.extrapolation import ResultCache
from gau_alpha.extrapolation.calibration import Calibration
from gau_alpha.extrapolation.report import Report
from gau_alpha.finetuning import GAUAlphaForSequenceClassification
from gau_alpha.finetuning.module import GAUAlphaFineTuning

SLOWEST = 20
"""Seconds that a case may take, on a machine that is busy; nearly all take less than one."""

QUIET = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
SMALL = ["--length_ratios", "1", "2", "--methods", "trained", "--max_documents", "2", "--output_dir", "out"]

Way = Callable[[], int]
"""Opens a spoiled file and returns the exit code."""


class TooLong(BaseException):
    """Goes through whatever catches exceptions."""


@dataclass(frozen=True)
class File:
    """A real file, and what opens it.

    Attributes:
        content: Plain data.
        write: Writes such data where the ways look for it.
        ways: By name.
        chosen: Which of them read what stands at a place; those that are quick are named more often.
        count: Cases to draw. If it has more places, one for each.
        left_out: Rules that do not concern it.
    """

    content: Any
    write: Callable[[Any], object]
    ways: dict[str, Way]
    chosen: Callable[[Place], Sequence[str]]
    count: int
    left_out: Sequence[str] = ()


@dataclass
class Faults:
    """Runs cases and collects what went wrong."""

    capsys: Any
    unchanged: Sequence[Path]
    found: list[str] = field(default_factory=list)
    done: Counter = field(default_factory=Counter)

    def run(self, name: str, way: Way) -> None:
        before = listing(*self.unchanged)
        self.capsys.readouterr()
        begun = time.perf_counter()
        try:
            with at_most(2 * SLOWEST):
                code = outcome(way)
        except (Exception, TooLong) as error:  # what must not happen: all of them are shown at the end
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {str(error)[:200]!r} at {place.filename}:{place.lineno}"
            self.found.append(f"{name}: {what}")
            return
        said = "".join(self.capsys.readouterr())
        messages = said.count("gau-alpha: error: ")
        # a loss that is no number is told with code 1; what Python raised has been told above
        allowed = (0, 2, *([1] if "finite" in said else []))
        wrong = {
            f"code {code}, {messages} messages": code not in allowed or messages != (code > 0),
            "a traceback was printed": "Traceback" in said,
            "a control character was printed": "\x1b" in said,
            f"it took {time.perf_counter() - begun:.0f} s": time.perf_counter() - begun > SLOWEST,
            "what a file names was run": Path(MARKER).exists() or "evil_things" in sys.modules,
            f"files changed: {listing(*self.unchanged) ^ before}": listing(*self.unchanged) != before,
        }
        self.found += [f"{name}: {what}" for what, is_so in wrong.items() if is_so]
        Path(MARKER).unlink(missing_ok=True)
        sys.modules.pop("evil_things", None)


def listing(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


def outcome(way: Way) -> int:
    try:
        return way()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else -1


@contextmanager
def at_most(seconds: int):
    def end(*_):
        raise TooLong(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def typed(*args: object) -> Way:
    """A command, as it is typed."""
    return lambda: main([str(arg) for arg in args])


def called(function: Callable[[], object]) -> Way:
    """Python: a ValueError is what a message is on the command line."""

    def way() -> int:
        try:
            function()
        except ValueError as error:
            print("gau-alpha: error: ", ascii(str(error)))
            return 2
        return 0

    return way


def saved(path: Path) -> Callable[[Any], object]:
    return lambda content: torch.save(content, path)


def written(path: Path) -> Callable[[Any], object]:
    return lambda content: path.write_text(fuzzing.with_digits(json.dumps(content)))


def always(*names: str) -> Callable[[Place], Sequence[str]]:
    return lambda place: names


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working directory: with a module that leaves a marker, beside a folder that nothing may be written to."""
    for name in ("here", "outside"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    Path("evil_things.py").write_text(HOSTILE)
    return tmp_path / "here"


@pytest.fixture
def trained(here, corpus) -> Path:
    """A checkpoint of a run that ends amid what is logged, an epoch and a schedule; its config is ``tiny.yaml``."""
    saver = {"monitor": "validation/loss", "mode": "max", "save_top_k": 2, "enable_version_counter": False}
    settings = {"accelerator": "cpu", "max_steps": 6, "log_every_n_steps": 3, "limit_val_batches": 1}
    config = tiny_run(here, corpus, "first", saver, **settings, val_check_interval=2, num_sanity_val_steps=0)
    config["trainer"]["callbacks"] += [
        {
            "class_path": "callbacks.extrapolation.ExtrapolationEvaluation",
            "init_args": {"every_n_train_steps": 100, "length_ratios": [1], "max_documents": 1},
        }
    ]
    config["model"]["config"]["num_hidden_layers"] = 1
    Path("tiny.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "tiny.yaml"]) == 0
    shutil.copy(here / "run/first/checkpoints/epoch=0-step=4.ckpt", "real.ckpt")
    shutil.copytree("run", "kept")
    return here / "real.ckpt"


def going_on() -> int:
    """``fit`` from the spoiled checkpoint, in the folder of the run that left the real one."""
    shutil.rmtree("run", ignore_errors=True)
    shutil.copytree("kept", "run")
    return main(["fit", "--config", "tiny.yaml", "--ckpt_path", "spoiled.ckpt"])


def renewed(way: Way, *names: str) -> Way:
    """Without what an earlier case has left."""

    def renew() -> int:
        for name in names:
            shutil.rmtree(name, ignore_errors=True)
            Path(name).unlink(missing_ok=True) if Path(name).is_file() else None
        return way()

    return renew


def open_calibrated(path: str) -> Way:
    return typed(
        "extrapolate", "--ckpt_path", "real.ckpt", *SMALL, "--methods", "trained_calibrated", "--calibrations", path
    )


def checkpoint_file(trained: Path) -> File:
    read = ["--ckpt_path", "spoiled.ckpt", *QUIET]
    ways = {
        "fill-mask": typed("fill-mask", "--model", "spoiled.ckpt", "ab[MASK]d"),
        "convert": renewed(typed("convert", "spoiled.ckpt", "converted"), "converted"),
        "load": called(lambda: GAUAlphaModule.load_from_checkpoint("spoiled.ckpt")),
        "validate": typed("validate", *read),
        "predict": renewed(typed("predict", *read, "--predictions.output", "p.jsonl"), "p.jsonl"),
        "extrapolate": renewed(typed("extrapolate", "--ckpt_path", "spoiled.ckpt", *SMALL), "out"),
        "calibrate": typed("calibrate", "--ckpt_path", "spoiled.ckpt", *TABLE, "--output", "c.json"),
        "start": typed(
            "fit", "--config", "tiny.yaml", "--model.init_from", "spoiled.ckpt", *QUIET, "--trainer.max_steps", 1
        ),
        "fit": going_on,
    }
    quick = ("fill-mask", "convert", "load")
    described = (*quick * 8, *ways)
    by_part = {
        "state_dict": described,
        "hyper_parameters": described,
        "run": (*("convert",) * 12, "validate", "predict", "extrapolate", "calibrate", "fit"),
    }
    return File(
        torch.load(trained, weights_only=True),
        saved(Path("spoiled.ckpt")),
        ways,
        # all else is Lightning's, and is restored where training goes on
        lambda place: by_part.get(place[0], ("fit",)) if place else described,
        1000,
        ("digits",),
    )


TABLE = ["--length_ratios", "1", "2", "--num_documents", "2", "--queries_per_document", "4"]


def checkpoint_of_a_head(here: Path) -> File:
    Path("train.jsonl").write_text("".join(f'{{"text": "ab{n}", "label": "{"xy"[n % 2]}"}}\n' for n in range(8)))
    base = yaml.safe_load(Path("tiny.yaml").read_text())
    data = {
        "examples": {"class_path": "datamodules.SequenceExamples", "init_args": {"labels": ["x", "y"]}},
        "tokenizer": "datamodules.ByteTokenizer",
        "train": {"path": "train.jsonl"},
        "validation": {"path": "train.jsonl"},
        "train_length": 16,
        "batch_size": 2,
    }
    base["data"] = {"class_path": "datamodules.LabelledTextDataModule", "init_args": data}
    base["model"]["head"] = "gau_alpha.finetuning.GAUAlphaForSequenceClassification"
    base["trainer"]["callbacks"] = [
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"filename": "last"}}
    ]
    base["trainer"] |= {
        "max_epochs": 1,
        "val_check_interval": None,
        "max_steps": 4,
        "default_root_dir": "headed",
        "logger": False,
    }
    Path("headed.yaml").write_text(yaml.safe_dump(base))
    assert main(["fit", "--config", "headed.yaml"]) == 0
    real = Path("headed/checkpoints/last.ckpt")
    read = ["--ckpt_path", "spoiled_head.ckpt", *QUIET]
    ways = {
        "convert": renewed(typed("convert", "spoiled_head.ckpt", "converted"), "converted"),
        "load": called(lambda: GAUAlphaFineTuning.load_from_checkpoint("spoiled_head.ckpt")),
        "validate": typed("validate", *read),
        "predict": renewed(typed("predict", *read, "--predictions.output", "p.jsonl"), "p.jsonl"),
        "fit": typed("fit", "--config", "headed.yaml", *read, "--trainer.max_epochs", 2, "--trainer.max_steps", 5),
    }
    content = torch.load(real, weights_only=True)
    mine = {name: content[name] for name in ("hyper_parameters", "run")}  # the rest is as in the other
    return File(
        mine,
        lambda changed: torch.save(
            {**content, **changed} if isinstance(changed, dict) else changed, "spoiled_head.ckpt"
        ),
        ways,
        always(*("convert", "load") * 10, *ways),
        200,
        ("digits",),
    )


def folder_files(trained: Path) -> dict[str, File]:
    assert main(["convert", str(trained), "folder"]) == 0
    ways = {
        "fill-mask": typed("fill-mask", "--model", "folder", "ab[MASK]d"),
        "convert": renewed(typed("convert", "folder", "back.ckpt"), "back.ckpt"),
        "load": called(lambda: GAUAlphaForMaskedLM.from_pretrained("folder")),
        "headed": called(lambda: GAUAlphaForSequenceClassification.from_pretrained("folder", labels=["x", "y"])),
        "start": typed("fit", "--config", "tiny.yaml", "--model.init_from", "folder", *QUIET, "--trainer.max_steps", 1),
    }
    chosen = always(*("fill-mask", "convert", "load", "headed") * 6, "start")
    config, special, state = (
        Path("folder") / name for name in ("config.json", "tokenizer_config.json", "training_state.ckpt")
    )

    def file(path: Path, chosen: Callable[[Place], Sequence[str]], count: int) -> File:
        text = path.read_text()

        def write(content: Any) -> None:
            path.write_text(fuzzing.with_digits(json.dumps(content)))

        def restored(way: Way) -> Way:
            def run() -> int:
                try:
                    return way()
                finally:
                    path.write_text(text)

            return run

        return File(json.loads(text), write, {name: restored(way) for name, way in ways.items()}, chosen, count)

    return {
        "config.json": file(config, chosen, 200),
        "tokenizer_config.json": file(special, always("fill-mask"), 30),
        "training_state.ckpt": File(
            torch.load(state, weights_only=True), saved(state), ways, always("convert"), 200, ("digits",)
        ),
    }


def headed_folder(here: Path) -> File:
    real = Path("headed/checkpoints/last.ckpt")
    assert main(["convert", str(real), "headed_folder", "--weights_only"]) == 0
    ways = {
        "convert": renewed(typed("convert", "headed_folder", "back.ckpt"), "back.ckpt"),
        "load": called(lambda: GAUAlphaForSequenceClassification.from_pretrained("headed_folder")),
    }
    path = Path("headed_folder/config.json")
    return File(json.loads(path.read_text()), written(path), ways, always("convert", "load"), 150)


def calibration_file(trained: Path) -> File:
    assert main(["calibrate", "--ckpt_path", str(trained), *TABLE, "--output", "real.json"]) == 0
    ways = {
        "read": called(lambda: Calibration.read("spoiled.json")),
        "extrapolate": renewed(open_calibrated("spoiled.json"), "out"),
    }
    content = json.loads(Path("real.json").read_text())
    return File(content, written(Path("spoiled.json")), ways, always(*("read",) * 30, "extrapolate"), 100)


def report_and_ledger(trained: Path, monkeypatch) -> dict[str, File]:
    """Of an evaluation that kept its finished measurements."""
    command = typed("extrapolate", "--ckpt_path", str(trained), *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(ResultCache, "close", lambda self: None)
        assert command() == 0
    shutil.copytree("out", "measured")
    Path("beside").mkdir()
    shutil.copy(trained, "beside/last.ckpt")

    def show() -> None:
        report = Report.read("beside/extrapolation.json")
        for text in (report.json(), report.csv(), report.markdown(), report.latex(), report.html()):
            assert "\x1b" not in text

    ways = {"read": called(show), "card": renewed(typed("convert", "beside/last.ckpt", "converted"), "converted")}
    content = json.loads(Path("out/extrapolation.json").read_text())
    files = {
        "extrapolation.json": File(
            content, written(Path("beside/extrapolation.json")), ways, always("read", "card"), 200
        )
    }
    for path in sorted(Path("measured/extrapolation.unfinished").iterdir())[-2:]:
        real = json.loads(path.read_text())

        def write(content: Any, name: str = path.name) -> None:
            shutil.rmtree("out", ignore_errors=True)
            shutil.copytree("measured", "out")
            Path("out/extrapolation.unfinished", name).write_text(fuzzing.with_digits(json.dumps(content)))

        identity = json.loads(Path("measured/extrapolation.unfinished/identity.json").read_text())
        ways = {
            "read": called(lambda identity=identity: ResultCache(Path("out/extrapolation.unfinished"), identity)),
            "extrapolate": command,
        }
        name = "identity.json" if path.name == "identity.json" else "measurement"
        files[name] = File(real, write, ways, always(*("read",) * 9, "extrapolate"), 100)
    return files


def config_file() -> File:
    """The user's own: it may name classes of theirs, and files anywhere."""
    content = yaml.safe_load(Path("tiny.yaml").read_text())
    content["trainer"]["default_root_dir"] = content["data"]["init_args"]["cache_dir"] = "mine"

    def write(changed: Any) -> None:
        Path("spoiled.yaml").write_text(fuzzing.with_digits(yaml.safe_dump(changed)))

    ways = {"fit": typed("fit", "--config", "spoiled.yaml", "--trainer.max_time", "00:00:00:02")}
    return File(content, write, ways, always("fit"), 0, ("class", "outside"))


@pytest.mark.slow
def test_every_field_of_every_file(trained, here, corpus, capsys, monkeypatch):
    files = {
        "checkpoint": checkpoint_file(trained),
        "checkpoint of a head": checkpoint_of_a_head(here),
        **folder_files(trained),
        "config.json of a head": headed_folder(here),
        "calibration": calibration_file(trained),
        **report_and_ledger(trained, monkeypatch),
        "config.yaml": config_file(),
    }
    faults = Faults(capsys, [here.parent / "outside", corpus])
    dice = random.Random(0)
    spent = Counter()
    for name, file in files.items():
        cases = list(fuzzing.changes(file.content, file.left_out))
        for place, rule, value in fuzzing.drawn(cases, file.count, dice):
            way = dice.choice(file.chosen(place))
            file.write(fuzzing.changed(file.content, place, value))
            begun = time.perf_counter()
            faults.run(f"{name} {'.'.join(map(str, place))} {rule}, {way}", file.ways[way])
            spent[name] += time.perf_counter() - begun
            spent[way] += time.perf_counter() - begun
            faults.done[name] += 1
            faults.done[rule] += 1
            faults.done[way] += 1
    assert not faults.found, f"{faults.done} {spent}\n" + "\n".join(faults.found)
    print(faults.done, spent)
