"""What is compared: methods on models, and the checkpoints that these come from."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gau_alpha.attention.method import FIXED_BY_TRAINING, AttentionMethod
from gau_alpha.attention.presets import TRAINED, display_name, load_preset, preset_names, resolve_method
from gau_alpha.checkpoints import is_folder, load_weights, model_of, read_evaluated_hashed, recipe
from gau_alpha.checkpoints.chosen_weights import held_weights
from gau_alpha.checkpoints.identity import RUN_KEY, has_recipe
from gau_alpha.extrapolation.calibration import (
    FITTED,
    RANDOM_KEYS,
    Calibration,
    base_of,
    calibration_path,
    is_calibrated,
    objective_of,
)
from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.training.module import GAUAlphaModule


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint opened for evaluation.

    Attributes:
        path: The file, or Hugging Face folder.
        label: What tells it from the others in a table.
        model: The model with the checkpoint's weights, under the method asked for.
        trained_method: The method that it was trained with.
        train_length: Tokens per row that it was trained on.
        sha256: Of the bytes that were read, by which a calibration or an interrupted evaluation knows them again.
        recipe: What it has in common with a checkpoint that differs in nothing but seeds and names, as JSON.
        weights: ``raw``, or ``averaged`` over steps.
    """

    path: Path
    label: str
    model: GAUAlphaForMaskedLM
    trained_method: AttentionMethod
    train_length: int
    sha256: str
    recipe: str
    weights: str

    def suits(self, method: str) -> bool:
        """Say whether the model was trained with the similarity and normalizer that a method fixes, if it does."""
        base = base_of(method)
        chosen = {} if base == TRAINED else load_preset(base)
        own = dict(self.trained_method.axes())
        return all(type(chosen[axis]) is type(own[axis]) for axis in FIXED_BY_TRAINING if axis in chosen)


@dataclass(frozen=True)
class Candidate:
    """One line of a table: a method on a model.

    Attributes:
        name: As the table names it; no other candidate has it.
        model: The model, on its device.
        method: What the model is measured under.
        group: Shared by candidates that differ in nothing but the seed of their training. Empty for a loner.
        trained_method: What the model was trained under; None if that is the method it has.
        note: What a reader should know before quoting its results.
        calibration: Where the method's temperatures come from, if they were calibrated.
        checkpoint: Where the model comes from; None for a model that was given.
    """

    name: str
    model: GAUAlphaForMaskedLM
    method: AttentionMethod
    group: str = ""
    trained_method: AttentionMethod | None = None
    note: str = ""
    calibration: Calibration | None = None
    checkpoint: LoadedCheckpoint | None = None

    @property
    def compatibility_warnings(self) -> list[str]:
        """What speaks against the method on weights that were trained under another."""
        return self.method.compatibility_warnings(self.trained_method or self.model.method)


def open_checkpoints(paths: list[str], module: GAUAlphaModule) -> list[LoadedCheckpoint]:
    """Load checkpoints for evaluation.

    Args:
        paths: Lightning checkpoints of ``GAUAlphaModule``, or Hugging Face folders.
        module: Built for the first one, possibly with another method than it was trained with: it receives that
            one's weights. On the axes where its method differs, every checkpoint gets the strategy of ``module``.

    Raises:
        ValueError: If a file is not such a checkpoint, its weights don't fit, or one is given twice.
    """
    if not paths:
        raise ValueError("This needs --ckpt_path and one or more checkpoints.")
    checkpoints, hashes = zip(*map(read_evaluated_hashed, paths), strict=True)
    _check_different(paths, checkpoints, hashes)
    read = [model_of(checkpoint, path) for checkpoint, path in zip(checkpoints, paths, strict=True)]
    wanted, trained = module.model.method, read[0][1]
    asked: dict[str, Any] = {
        axis: strategy for axis, strategy in wanted.axes() if strategy.describe() != getattr(trained, axis).describe()
    }
    if (asked and wanted.turns) or (wanted.turns and wanted.turns.describe()) != (
        trained.turns and trained.turns.describe()
    ):
        asked["turns"] = wanted.turns
    loaded: list[LoadedCheckpoint] = []
    for path, label, checkpoint, sha256, (config, method, weights) in zip(
        paths, _labels(paths), checkpoints, hashes, read, strict=True
    ):
        if not loaded and config == module.model.config:
            model = module.model
            model.set_method(method)  # which may have weights of its own
        else:
            model = GAUAlphaForMaskedLM(config, method, module.hparams["kernel"])
        load_weights(model, weights, path)
        model.set_method(model.method.replace(**asked))
        train_length = checkpoint["hyper_parameters"]["train_length"]
        made = json.dumps(recipe(checkpoint), sort_keys=True, default=repr)
        if not has_recipe(checkpoint):
            made += path  # nobody knows that it differs from another in seeds alone
        weights_kind = held_weights(checkpoint)
        loaded.append(
            LoadedCheckpoint(Path(path), label, model.eval(), method, train_length, sha256, made, weights_kind)
        )
    return loaded


def _check_different(paths: Sequence[str], checkpoints: Sequence[Mapping[str, Any]], hashes: Sequence[str]) -> None:
    """Refuse one checkpoint that is given twice: it would pass for two seeds of one training."""
    seen: dict[object, str] = {}
    for path, checkpoint, sha256 in zip(paths, checkpoints, hashes, strict=True):
        run = checkpoint.get(RUN_KEY)
        owner = run.get("id") if isinstance(run, Mapping) else None
        step = None if owner is None else (str(owner), checkpoint.get("global_step"), held_weights(checkpoint))
        for identity in (sha256, step):
            if identity is not None and seen.setdefault(identity, path) != path:
                raise ValueError(
                    f"{seen[identity]} and {path} are of the same run at the same step: give one of them. What differs "
                    "in nothing would pass for two seeds."
                )
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise ValueError(f"--ckpt_path names {', '.join(twice)} more than once.")


def run_folder(path: Path) -> Path:
    """Return the folder of the run that left a checkpoint, RUN/checkpoints/FILE; a Hugging Face folder is its own."""
    return path.resolve() if is_folder(path) else path.resolve().parent.parent


GROUPS = ("training-free", "all")
"""What stands for several methods: ``trained``, and the presets that no weights have to be trained for, or all."""


def expand_methods(
    checkpoints: list[LoadedCheckpoint], methods: Sequence[str], calibrations: list[str] | None = None
) -> tuple[list[str], list[str]]:
    """Write out the methods that a group stands for, but for those that can't be evaluated.

    Args:
        checkpoints: The checkpoints.
        methods: Names, of methods or ``GROUPS``.
        calibrations: As for ``pair_up``.

    Returns:
        Names of methods; and a note for each that is left out: that it has no table yet, or why it can't be put on a
        checkpoint.
    """
    tables = None if calibrations is None else [(path, Calibration.read(path)) for path in calibrations]
    names, left_out = [name for name in methods if name not in GROUPS], []
    for group in (name for name in methods if name in GROUPS):
        for name in [TRAINED, *preset_names(), FITTED]:
            suited = [one for one in checkpoints if one.suits(name)]
            free = name in (TRAINED, FITTED) or all(_needs_no_training(name, one) for one in suited)
            if name in names or (group == "training-free" and not (free and suited)):
                continue
            try:
                for one in suited or checkpoints:
                    if is_calibrated(name):
                        _calibration(one, name, tables)
                    else:
                        resolve_method(name, one.model.method, one.train_length).for_layers(
                            one.model.config.num_hidden_layers
                        )
                names.append(name)
            except ValueError as error:
                command = f"gau-alpha calibrate --objective {objective_of(name)}"
                why = f"it has no table yet; `{command}` makes one" if is_calibrated(name) else error
                left_out.append(f"{name} is left out: {why}")
    return names, list(dict.fromkeys(left_out))


def _needs_no_training(preset: str, checkpoint: LoadedCheckpoint) -> bool:
    """Whether all that a preset chooses is training-free, or what the checkpoint was trained with."""
    own = dict(checkpoint.trained_method.axes())
    return all(one.training_free or type(one) is type(own.get(axis)) for axis, one in load_preset(preset).items())


def pair_up(
    checkpoints: list[LoadedCheckpoint],
    methods: list[str],
    calibrations: list[str] | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> list[Candidate]:
    """Decide which method is evaluated on which checkpoint.

    With one checkpoint every method is. With several, a method that fixes the similarity goes to those trained with
    it, others to all.

    Args:
        checkpoints: The checkpoints.
        methods: Names of presets, ``trained``, or ``NAME_calibrated`` for a preset NAME.
        calibrations: Files with the tables of calibrated methods; if None, those next to the checkpoints.
        notes: What a reader should know of a checkpoint's results, by its path.

    Raises:
        ValueError: If a method is unknown, named twice, or suits none of several checkpoints; or if a calibration is
            missing or belongs to none of the checkpoints.
    """
    if not methods:
        raise ValueError("methods is empty: name presets, or 'trained' for the method of each checkpoint.")
    if twice := [name for name, count in Counter(map(display_name, methods)).items() if count > 1]:
        raise ValueError(f"methods names {', '.join(twice)} more than once.")
    tables = None if calibrations is None else [(path, Calibration.read(path)) for path in calibrations]
    candidates = []
    for name in methods:
        suited = [one for one in checkpoints if len(checkpoints) == 1 or one.suits(name)]
        if not suited:
            raise ValueError(
                f"Method {name!r} fixes a similarity or normalizer that none of the checkpoints was trained with."
            )
        groups = _groups(suited)
        shown = display_name(name)
        for checkpoint in suited:
            kind = groups.get(checkpoint.recipe)
            method = resolve_method(base_of(name), checkpoint.model.method, checkpoint.train_length)
            calibration = None
            if is_calibrated(name):
                calibration = _calibration(checkpoint, name, tables)
                scale = calibration.random_keys() if name == RANDOM_KEYS else calibration.scale
                method = method.replace(scaling=scale)
            candidates.append(
                Candidate(
                    name=shown if len(suited) == 1 else f"{shown} ({checkpoint.label})",
                    model=checkpoint.model,
                    method=method,
                    group="" if kind is None else f"{shown}{kind}",
                    trained_method=checkpoint.trained_method,
                    note=notes.get(str(checkpoint.path), ""),
                    calibration=calibration,
                    checkpoint=checkpoint,
                )
            )
    return candidates


def _groups(checkpoints: list[LoadedCheckpoint]) -> dict[str, str]:
    """Tell groups of checkpoints apart that differ in nothing but seeds: by recipe, what is put behind a name.

    Where some were trained with one similarity and some with another, a group says with which; where that does not
    tell groups apart, it names its members.
    """
    members: dict[str, list[LoadedCheckpoint]] = {}
    for one in checkpoints:
        members.setdefault(one.recipe, []).append(one)
    kinds = {
        recipe: "" if len(members) == 1 else f" ({some[0].trained_method.similarity.in_full()})"
        for recipe, some in members.items()
        if len(some) > 1
    }
    alike = Counter(kinds.values())
    return {
        recipe: kind if alike[kind] == 1 else f" ({', '.join(one.label for one in members[recipe])})"
        for recipe, kind in kinds.items()
    }


def _calibration(checkpoint: LoadedCheckpoint, name: str, tables: list[tuple[str, Calibration]] | None) -> Calibration:
    base, objective = base_of(name), objective_of(name)
    path = str(calibration_path(checkpoint.path, base, objective))
    found = [(path, Calibration.read(path))] if tables is None else tables
    for _, calibration in found:
        belongs = calibration.provenance.get("checkpoint_sha256") == checkpoint.sha256
        if belongs and (calibration.method, calibration.objective) == (base, objective):
            return calibration
    raise ValueError(
        f"None of the calibrations {', '.join(path for path, _ in found)} was made for method {base!r} on "
        f"{checkpoint.path} as it is now. Make one with `gau-alpha calibrate --ckpt_path {checkpoint.path} "
        f"--method {base} --objective {objective}`."
    )


def _labels(paths: list[str]) -> list[str]:
    """Name checkpoints by their run's folder , or by path where that is ambiguous."""
    names = [run_folder(Path(path)).name for path in paths]
    return names if len(set(names)) == len(names) else paths
