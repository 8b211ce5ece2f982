"""Several checkpoints under several methods, as one test that Lightning runs."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from torch.nn import ModuleList
from torch.utils.data import DataLoader

from gau_alpha.checkpoints import load_weights, read_checkpoint
from gau_alpha.extrapolation import ExtrapolationEngine, Row
from gau_alpha.method import AttentionMethod
from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.module import GAUAlphaModule
from gau_alpha.presets import TRAINED, load_preset, method_from, resolve_method
from gau_alpha.report import progress_bar


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
        similarity = None if method == TRAINED else load_preset(method).get("similarity")
        return similarity is None or type(similarity) is type(self.trained_method.similarity)


@dataclass(frozen=True)
class Evaluation:
    """One line of a table: a method on a checkpoint.

    Attributes:
        name: As the table names it.
        method: Applied to the checkpoint's model.
        entrant: The checkpoint.
        note: What a reader should know of this pairing.
    """

    name: str
    method: AttentionMethod
    entrant: Entrant
    note: str


class ExtrapolationStudy(LightningModule):
    """Measures evaluations in a test of one step, so that Lightning sets up devices, precision and processes.

    Args:
        evaluations: What to measure.
        datamodule: Offers ``vocabulary``, ``train_length`` and ``evaluation_documents()``.
        options: Arguments of ``ExtrapolationEngine``.
    """

    def __init__(self, evaluations: list[Evaluation], datamodule: LightningDataModule, options: dict[str, Any]) -> None:
        super().__init__()
        self.evaluations = evaluations
        self.datamodule = datamodule
        self.options = options
        self.entrants = list({id(one.entrant): one.entrant for one in evaluations}.values())
        self.models = ModuleList(entrant.model for entrant in self.entrants)
        self.rows: list[Row] = []
        self._engine: ExtrapolationEngine | None = None

    @property
    def engine(self) -> ExtrapolationEngine:
        """The engine, once ``setup`` has built it."""
        assert self._engine is not None, "setup builds it"
        return self._engine

    def prepare_data(self) -> None:
        """Let the data module tokenise, on one process per node."""
        self.datamodule.prepare_data()

    def setup(self, stage: str) -> None:
        """Open the documents, and check that they and the checkpoints belong together.

        Raises:
            ValueError: If the data's train_length is not the checkpoints', or no document is long enough.
        """
        self.datamodule.setup("test")
        data: Any = self.datamodule
        for entrant in self.entrants:
            if entrant.train_length != data.train_length:
                raise ValueError(
                    f"{entrant.path} was trained on rows of {entrant.train_length} tokens, but the data has "
                    f"train_length {data.train_length}: length ratios would be wrong. Leave the data's train_length "
                    f"as it was in training; other lengths are asked for with --length_ratios."
                )
        self._engine = ExtrapolationEngine(
            data.evaluation_documents(), data.vocabulary, data.train_length, **self.options
        )

    def test_dataloader(self) -> DataLoader[int]:
        """Return the one step; the engine deals documents to processes itself."""
        return DataLoader([0])  # type: ignore[arg-type]

    def test_step(self, batch: object, batch_idx: int) -> None:
        """Measure every method at every length."""
        with progress_bar() if self.trainer.is_global_zero else nullcontext() as progress:
            for entrant in self.entrants:
                mine = {one.name: one for one in self.evaluations if one.entrant is entrant}
                methods = {name: one.method for name, one in mine.items()}
                for row in self.engine.rows(entrant.model, methods, progress):
                    notes = [note for note in (mine[row.method].note, row.note) if note]
                    self.rows.append(replace(row, note="; ".join(notes)))

    def describe(self) -> dict[str, Any]:
        """Say in plain data what was measured."""
        return {
            "evaluation": self.engine.describe(),
            "methods": {one.name: one.method.describe() for one in self.evaluations},
            "checkpoints": {one.name: str(one.entrant.path) for one in self.evaluations},
        }


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
        raise ValueError("extrapolate needs --ckpt_path and one or more checkpoints.")
    checkpoints = [read_checkpoint(path) for path in paths]
    trained = [method_from(checkpoint["hyper_parameters"]["method"]) for checkpoint in checkpoints]
    asked = {
        axis: strategy
        for axis, strategy in module.model.method.axes()
        if strategy.describe() != getattr(trained[0], axis).describe()
    }
    entrants = []
    for path, label, checkpoint, method in zip(paths, _labels(paths), checkpoints, trained, strict=True):
        arguments = checkpoint["hyper_parameters"]
        if arguments["config"]["vocab_size"] != module.model.config.vocab_size:
            raise ValueError(
                f"{path} has a vocabulary of {arguments['config']['vocab_size']} ids, the data one of "
                f"{module.model.config.vocab_size}: give the tokenizer that the model was trained with."
            )
        model = GAUAlphaForMaskedLM(type(module.model.config)(**arguments["config"]), method, module.hparams["kernel"])
        prefix = "model."
        weights = {name.removeprefix(prefix): tensor for name, tensor in checkpoint["state_dict"].items()}
        load_weights(model, weights, path)
        model.set_method(model.method.replace(**asked))
        entrants.append(Entrant(Path(path), label, model.eval(), method, arguments["train_length"]))
    return entrants


def pair_up(entrants: list[Entrant], methods: list[str]) -> list[Evaluation]:
    """Decide which method is evaluated on which checkpoint.

    With one checkpoint every method is. With several, a method that fixes the similarity goes to those trained with
    it, others to all.

    Args:
        entrants: The checkpoints.
        methods: Names of presets, or ``trained``.

    Raises:
        ValueError: If a method is unknown, named twice, or suits none of several checkpoints.
    """
    if not methods:
        raise ValueError("methods is empty: name presets, or 'trained' for the method of each checkpoint.")
    if twice := [name for name, count in Counter(methods).items() if count > 1]:
        raise ValueError(f"methods names {', '.join(twice)} more than once.")
    evaluations = []
    for name in methods:
        suited = [entrant for entrant in entrants if len(entrants) == 1 or entrant.suits(name)]
        if not suited:
            raise ValueError(f"Method {name!r} fixes a similarity that none of the checkpoints was trained with.")
        for entrant in suited:
            evaluations.append(
                Evaluation(
                    name=name if len(suited) == 1 else f"{name} ({entrant.label})",
                    method=resolve_method(name, entrant.model.method, entrant.train_length),
                    entrant=entrant,
                    note="" if entrant.suits(name) else "not the similarity that the weights were trained for",
                )
            )
    return evaluations


def _labels(paths: list[str]) -> list[str]:
    """Name checkpoints by their run's folder (RUN/checkpoints/FILE), or by path where that is ambiguous."""
    names = [Path(path).resolve().parent.parent.name for path in paths]
    return names if len(set(names)) == len(names) else paths
