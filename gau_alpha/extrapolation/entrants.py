"""Which checkpoints are evaluated under which methods."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.attention.presets import TRAINED, load_preset, resolve_method, shown_name
from gau_alpha.checkpoints import load_weights, model_of, read_checkpoint
from gau_alpha.extrapolation import Contender
from gau_alpha.extrapolation.calibration import Calibration
from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.training.module import GAUAlphaModule

CALIBRATED = "calibrated"
"""The method ``calibrated``; ``NAME_calibrated`` is the method NAME with its temperatures calibrated."""


@dataclass(frozen=True)
class Entrant:
    """A checkpoint to be evaluated.

    Attributes:
        path: The file.
        label: What tells it from the others in a table.
        model: The model with the checkpoint's weights, under the method asked for.
        trained_method: The method that it was trained with.
        train_length: Tokens per row that it was trained on.
    """

    path: Path
    label: str
    model: GAUAlphaForMaskedLM
    trained_method: AttentionMethod
    train_length: int

    def suits(self, method: str) -> bool:
        """Say whether the model was trained with the similarity that a method fixes, if it fixes one."""
        base = base_of(method)
        similarity = None if base == TRAINED else load_preset(base).get("similarity")
        return similarity is None or type(similarity) is type(self.trained_method.similarity)

    def sha256(self) -> str:
        """Hash of the file, by which a calibration or an interrupted evaluation knows it again."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
        return digest.hexdigest()

    def recipe(self) -> str:
        """What two checkpoints have in common if they differ in nothing but the seed of training."""
        return json.dumps([self.trained_method.describe(), asdict(self.model.config), self.train_length])


@dataclass(frozen=True)
class Evaluation:
    """One line of a table: a method on a checkpoint.

    Attributes:
        name: As the table names it.
        method: Applied to the checkpoint's model.
        entrant: The checkpoint.
        group: Shared by evaluations of a method on checkpoints that differ in the seed of training alone.
        calibration: Where the method's temperatures come from, if they were calibrated.
    """

    name: str
    method: AttentionMethod
    entrant: Entrant
    group: str = ""
    calibration: Calibration | None = None

    def contender(self) -> Contender:
        """What the engine measures."""
        return Contender(self.name, self.entrant.model, self.method, self.group, self.entrant.trained_method)


def open_checkpoints(paths: list[str], module: GAUAlphaModule) -> list[Entrant]:
    """Load checkpoints for evaluation.

    Args:
        paths: Lightning checkpoints of ``GAUAlphaModule``.
        module: Built for the first one, possibly with another method than it was trained with. On the axes where it
            differs, every checkpoint gets the strategy of ``module``.

    Raises:
        ValueError: If a file is not such a checkpoint, or its weights don't fit.
    """
    if not paths:
        raise ValueError("This needs --ckpt_path and one or more checkpoints.")
    checkpoints = [read_checkpoint(path) for path in paths]
    read = [model_of(checkpoint, path) for checkpoint, path in zip(checkpoints, paths, strict=True)]
    trained = [method for _, method, _ in read]
    asked = {
        axis: strategy
        for axis, strategy in module.model.method.axes()
        if strategy.describe() != getattr(trained[0], axis).describe()
    }
    entrants = []
    for path, label, checkpoint, (config, method, weights) in zip(
        paths, _labels(paths), checkpoints, read, strict=True
    ):
        if config.vocab_size != module.model.config.vocab_size:
            raise ValueError(
                f"{path} has a vocabulary of {config.vocab_size} ids, the data one of "
                f"{module.model.config.vocab_size}: give the tokenizer that the model was trained with."
            )
        model = GAUAlphaForMaskedLM(config, method, module.hparams["kernel"])
        load_weights(model, weights, path)
        model.set_method(model.method.replace(**asked))
        entrants.append(
            Entrant(Path(path), label, model.eval(), method, checkpoint["hyper_parameters"]["train_length"])
        )
    return entrants


def pair_up(entrants: list[Entrant], methods: list[str], calibrations: list[str] | None = None) -> list[Evaluation]:
    """Decide which method is evaluated on which checkpoint.

    With one checkpoint every method is. With several, a method that fixes the similarity goes to those trained with
    it, others to all.

    Args:
        entrants: The checkpoints.
        methods: Names of presets, ``trained``, ``calibrated``, or ``NAME_calibrated`` for a preset NAME.
        calibrations: Files with the tables of calibrated methods; if None, those next to the checkpoints.

    Raises:
        ValueError: If a method is unknown, named twice, or suits none of several checkpoints; or if a calibration is
            missing or belongs to none of the checkpoints.
    """
    if not methods:
        raise ValueError("methods is empty: name presets, or 'trained' for the method of each checkpoint.")
    if twice := [name for name, count in Counter(map(shown_name, methods)).items() if count > 1]:
        raise ValueError(f"methods names {', '.join(twice)} more than once.")
    tables = None if calibrations is None else [(path, Calibration.read(path)) for path in calibrations]
    evaluations = []
    for name in methods:
        suited = [entrant for entrant in entrants if len(entrants) == 1 or entrant.suits(name)]
        if not suited:
            raise ValueError(f"Method {name!r} fixes a similarity that none of the checkpoints was trained with.")
        alike = Counter(entrant.recipe() for entrant in suited)
        shown = shown_name(name)
        for entrant in suited:
            several = alike[entrant.recipe()] > 1
            # Where some were trained with one similarity and some with another, a group says with which.
            kind = "" if len(alike) == 1 else f" ({entrant.trained_method.similarity!r})"
            method = resolve_method(base_of(name), entrant.model.method, entrant.train_length)
            calibration = None
            if is_calibrated(name):
                calibration = _calibration(entrant, name, tables)
                method = method.replace(scaling=calibration.scale)
            evaluations.append(
                Evaluation(
                    name=shown if len(suited) == 1 else f"{shown} ({entrant.label})",
                    method=method,
                    entrant=entrant,
                    group=f"{shown}{kind}" if several else "",
                    calibration=calibration,
                )
            )
    return evaluations


def is_calibrated(method: str) -> bool:
    """Say whether a method's temperatures come from a calibration."""
    return method == CALIBRATED or method.endswith(f"_{CALIBRATED}")


def base_of(method: str) -> str:
    """Name the method that was calibrated; any other method is its own base."""
    if not is_calibrated(method):
        return method
    return TRAINED if method == CALIBRATED else method.removesuffix(f"_{CALIBRATED}")


def calibration_path(checkpoint: Path, base: str) -> Path:
    """Where the calibration of a method lies if nothing else is said: next to the checkpoint.

    Args:
        checkpoint: The checkpoint.
        base: The method that was calibrated.
    """
    name = CALIBRATED if base == TRAINED else f"{base}_{CALIBRATED}"
    return checkpoint.with_name(f"{checkpoint.stem}.{name}.json")


def _calibration(entrant: Entrant, name: str, tables: list[tuple[str, Calibration]] | None) -> Calibration:
    base, path = base_of(name), str(calibration_path(entrant.path, base_of(name)))
    candidates = [(path, Calibration.read(path))] if tables is None else tables
    own = entrant.sha256()
    for _, calibration in candidates:
        if calibration.method == base and calibration.provenance.get("checkpoint_sha256") == own:
            return calibration
    raise ValueError(
        f"None of the calibrations {', '.join(path for path, _ in candidates)} was made for method {base!r} on "
        f"{entrant.path} as it is now. Make one with `gau-alpha calibrate --ckpt_path {entrant.path} --method {base}`."
    )


def _labels(paths: list[str]) -> list[str]:
    """Name checkpoints by their run's folder (RUN/checkpoints/FILE), or by path where that is ambiguous."""
    names = [Path(path).resolve().parent.parent.name for path in paths]
    return names if len(set(names)) == len(names) else paths
