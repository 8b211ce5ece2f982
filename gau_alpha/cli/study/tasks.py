"""The parts of a study that can be done one by one: a training with a seed, and an evaluation of one."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.cli.arguments import read_with_named
from gau_alpha.cli.record import changes
from gau_alpha.cli.study.definition import Evaluation, Study, Training
from gau_alpha.extrapolation.calibration import ENTROPY, LOSS, base_of, is_calibrated, objective_of
from gau_alpha.untrusted.reading import read_json

FINAL = Path("checkpoints") / "final.ckpt"
"""The weights that a training ends with, in its folder."""

LOG = "log.txt"
"""What the commands of a task print, in its folder."""

DONE = "done.json"
"""What a finished task has in its folder."""

_DEFINITION = "definition.json"
_MOST_CHANGES = 5  # that a message names


@dataclass(frozen=True)
class Task:
    """One part of a study, with a folder of its own.

    Attributes:
        number: Counted from 1 in the order of the study.
        kind: ``training`` or ``evaluation``.
        name: Of the training, or of the evaluation and its training.
        seed: Of the training.
        folder: Where everything of it lies.
        parent: What has to be done before.
        definition: All that decides what it does, as plain data.
        commands: The commands of ``gau-alpha`` that do it, one after the other.
    """

    number: int
    kind: str
    name: str
    seed: int
    folder: Path
    parent: "Task | None"
    definition: Mapping[str, Any]
    commands: Sequence[Sequence[str]]

    def __str__(self) -> str:
        return f"task {self.number}, {self.kind} {self.name}, seed {self.seed}"

    @property
    def is_done(self) -> bool:
        """Whether it was finished."""
        return (self.folder / DONE).is_file()

    @property
    def is_begun(self) -> bool:
        """Whether it was begun, and perhaps finished."""
        return (self.folder / _DEFINITION).is_file()

    @property
    def seconds(self) -> float | None:
        """How long it took; None where it is not done, or was done in more than one go."""
        if not self.is_done:
            return None
        found = read_json(self.folder / DONE)
        seconds = found.get("seconds") if isinstance(found, dict) and not found.get("resumed") else None
        return float(seconds) if isinstance(seconds, int | float) else None

    def check(self) -> None:
        """Compare what it does with what was begun in its folder.

        Raises:
            ValueError: If that was something else: names the differences.
        """
        if not self.is_begun:
            return
        before = read_json(self.folder / _DEFINITION)
        found = changes(before, json.loads(json.dumps(self.definition)), before_is="then", now_is="now")
        if not found:  # of two bases the later one wins
            orders = list(_bases(before)), list(_bases(self.definition))
            found = changes(orders[0], orders[1], "order of base", before_is="then", now_is="now")
        if not found:
            return
        more = f" and {len(found) - _MOST_CHANGES} more" if len(found) > _MOST_CHANGES else ""
        raise ValueError(
            f"{self} was begun in {self.folder} with other settings: {'; '.join(found[:_MOST_CHANGES])}{more}. Undo "
            f"the change, give the changed study another --output_dir, or remove that folder to do this part anew."
        )

    def begin(self) -> None:
        """Record what is done here.

        Raises:
            ValueError: As ``check``.
        """
        self.check()
        if not self.is_begun:
            _write_json(self.folder / _DEFINITION, self.definition)

    def finish(self, seconds: float, resumed: bool) -> None:
        """Record that all of it is done.

        Args:
            seconds: How long the commands took.
            resumed: Whether some of it had been done before.
        """
        _write_json(self.folder / DONE, {"seconds": round(seconds, 1), "resumed": resumed})


def tasks_of(study: Study, folder: Path, trust: Sequence[str] = ()) -> list[Task]:
    """List the tasks of a study: trainings by seed, then evaluations.

    Args:
        study: The study.
        folder: Of its results.
        trust: Classes of the user's own that files may name.

    Raises:
        ValueError: If the base does not exist, is no YAML, or names a checkpoint to go on from.
    """
    base = [_located(name, study.path.parent) for name in study.base]
    described = _described(base)
    tasks: list[Task] = []
    trained: dict[tuple[str, int], Task] = {}
    extra = [word for name in trust for word in ("--trust", name)]
    for training in study.trainings.values():
        for seed in training.seeds:
            parent = trained[training.parent, seed] if training.parent else None
            task = _training(study, training, seed, folder, parent, base, described, len(tasks) + 1, extra)
            trained[training.name, seed] = task
            tasks.append(task)
    for evaluation in study.evaluations.values():
        for name in evaluation.trainings:
            for seed in study.trainings[name].seeds:
                number = len(tasks) + 1
                tasks.append(_evaluation(study, evaluation, trained[name, seed], folder, number, extra))
    return tasks


def evaluation_folder(folder: Path, evaluation: str, training: str, seed: int) -> Path:
    """Return where an evaluation's report lies.

    Args:
        folder: Of the study's results.
        evaluation: Its name.
        training: The training's.
        seed: The training's seed.
    """
    return folder / "evaluations" / evaluation / training / f"seed_{seed}"


def overrides_path(folder: Path, training: str) -> Path:
    """Return the YAML that says how a training differs from the base.

    Args:
        folder: Of the study's results.
        training: Its name.
    """
    return folder / "trainings" / training / "overrides.yaml"


def located_overrides(training: Training, study: Study) -> Any:
    """Return a training's overrides with the names of files beside the study's YAML made absolute.

    Args:
        training: The training.
        study: Its study.
    """
    return _absolute(training.overrides, study.path.parent)


def _training(
    study: Study,
    training: Training,
    seed: int,
    folder: Path,
    parent: Task | None,
    base: Sequence[Path],
    described: Mapping[str, Any],
    number: int,
    extra: Sequence[str],
) -> Task:
    place = folder / "trainings" / training.name / f"seed_{seed}"
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(place.parent), "name": "", "version": place.name},
    }
    command = ["fit", *(word for path in base for word in ("--config", str(path)))]
    command += ["--config", str(overrides_path(folder, training.name))]
    command += [word for name in study.seed_settings for word in (f"--{name}", str(seed))]
    command += [f"--trainer.logger={json.dumps(logger)}", "--trainer.default_root_dir", str(place)]
    command += ["--trainer.callbacks+=callbacks.final_checkpoint.FinalCheckpoint", "--auto_resume", "true", *extra]
    if parent is not None:
        command += ["--model.init_from", str(parent.folder / FINAL)]
    overrides = located_overrides(training, study)
    named = {"override_files": found} if (found := _described(list(_files_in(overrides)))) else {}
    definition = {
        "base": described,
        "overrides": overrides,
        **named,
        "seed_settings": list(study.seed_settings),
        "seed": seed,
        "parent": None if parent is None else parent.definition,
    }
    return Task(number, "training", training.name, seed, place, parent, _plain(definition), [command])


def _evaluation(
    study: Study, evaluation: Evaluation, trained: Task, folder: Path, number: int, extra: Sequence[str]
) -> Task:
    place = evaluation_folder(folder, evaluation.name, trained.name, trained.seed)
    checkpoint = ["--ckpt_path", str(trained.folder / FINAL)]
    methods = [_absolute(name, study.path.parent) for name in evaluation.methods]
    wanted = dict.fromkeys((base_of(name), objective_of(name)) for name in methods if is_calibrated(name))
    kinds = {ENTROPY: "calibration", LOSS: "fitted"}
    tables = {(base, objective): place / f"{base}.{kinds[objective]}.json" for base, objective in wanted}
    lengths = {name: evaluation.options[name] for name in ("length_ratios",) if name in evaluation.options}
    calibrate = {**lengths, **evaluation.calibrate}
    commands = [
        [
            *("calibrate", *_options(calibrate), *extra),  # what comes later wins, whatever a config says
            *(*checkpoint, "--method", base, "--objective", objective, "--output", str(path)),
        ]
        for (base, objective), path in tables.items()
    ]
    chosen = [f"--calibrations={json.dumps([str(path) for path in tables.values()])}"] if tables else []
    own = [*checkpoint, f"--methods={json.dumps(methods)}", *chosen, "--output_dir", str(place)]
    commands.append(["extrapolate", *_options(evaluation.options), *extra, *own])
    named = {"option_files": found} if (found := _described(list(_files_in([evaluation.options, calibrate])))) else {}
    definition = {
        **named,
        "training": trained.definition,
        "methods": list(evaluation.methods),
        "method_files": _described([Path(name) for name in methods if name.endswith((".yaml", ".yml"))]),
        "options": evaluation.options,
        "calibrate": evaluation.calibrate,
    }
    name = f"{evaluation.name} of {trained.name}"
    return Task(number, "evaluation", name, trained.seed, place, trained, _plain(definition), commands)


def _located(name: str, beside: Path) -> Path:
    """Find a base: beside the study, in the working directory, or among the shipped files."""
    shipped = Path(str(files("configs").joinpath("")))
    for path in (beside / name, Path(name), shipped / name, shipped / f"{name}.yaml", shipped / "experiment" / name):
        if path.is_file():
            return path.absolute()
    raise ValueError(f"base: there is no file {name!r}, neither beside the study nor among the shipped ones.")


def _described(paths: Sequence[Path]) -> dict[str, Any]:
    """Return what YAML files and those that they name hold, by their names as seen from the first of each."""
    found: dict[str, Any] = {}
    for number, path in enumerate(map(Path.absolute, paths), 1):
        contents = read_with_named([path])
        for one, content in contents.items():
            name = os.path.relpath(one, path.parent)
            if found.setdefault(name, content) != content:  # another file of this name, in another folder
                found[f"{name} ({number})"] = content
            if isinstance(content, dict) and content.get("ckpt_path"):
                raise ValueError(f"{one} names a ckpt_path; a study's trainings begin afresh or have a parent.")
    return found


def _files_in(value: Any) -> Iterator[Path]:
    """Yield the YAML files that settings name, as the command will find them."""
    if isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _files_in(one)
    elif isinstance(value, str) and value.endswith((".yaml", ".yml")) and Path(value).is_file():
        yield Path(value)


def _bases(definition: Any) -> Iterator[str]:
    """Yield names of base files in their order, which dicts keep and their comparison does not see."""
    for name, value in definition.items() if isinstance(definition, Mapping) else ():
        if name == "base" and isinstance(value, Mapping):
            yield from value
        elif name in ("training", "parent"):
            yield from _bases(value)


def _absolute(value: Any, beside: Path) -> Any:
    if isinstance(value, Mapping):
        return {name: _absolute(one, beside) for name, one in value.items()}
    if isinstance(value, list):
        return [_absolute(one, beside) for one in value]
    is_file = isinstance(value, str) and value.endswith((".yaml", ".yml")) and (beside / value).is_file()
    return str((beside / value).absolute()) if is_file else value


def _options(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        text = value if isinstance(value, str) else json.dumps(value)
        yield f"--{name}={text}"


def _plain(definition: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(definition, default=str))


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomic(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
