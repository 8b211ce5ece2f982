"""Leaves the trained model as a Hugging Face folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.averaging import averaged_weights
from callbacks.recovery import CatchUpCallback
from callbacks.run_path import shared_run_path
from gau_alpha.checkpoints import (
    CARD,
    MODEL_PREFIX,
    fast_tokenizer_files,
    model_card,
    tokenizer_files,
    write_folder,
)
from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.checkpoints.chosen_weights import RAW
from gau_alpha.checkpoints.identity import TRAINING_DATA
from gau_alpha.finetuning import HeadedModel
from gau_alpha.training.module import GAUAlphaModule
from gau_alpha.untrusted.limits import require_path


class KnowsTrainingData:
    """What a callback is that knows what a run's weights were trained on: the record that the command line keeps."""

    def training_data(
        self, trainer: Trainer, pl_module: LightningModule, weights: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Say what they have been trained on so far; a collective.

        Args:
            trainer: The run's.
            pl_module: Its module.
            weights: ``raw`` or ``averaged``: which weights of it are meant.

        Returns:
            What a folder's ``training_data.json`` holds, and the section ``data`` of the run's config.
        """
        raise NotImplementedError


class ExportHuggingFace(Callback, CatchUpCallback):
    """Writes the folder that ``gau-alpha convert`` would make of the last checkpoint, when ``fit`` ends.

    The weights are those that training ends with, or their average where a ``WeightAveraging`` has begun one. Without
    the command line's record of the run, ``training_data.json`` is left out, and the card says less of the data.

    Args:
        folder: Where to write. Default: ``huggingface`` in the run's folder.
        licence: An identifier as the Hugging Face hub knows it, such as ``apache-2.0``, for the model card.

    Raises:
        ValueError: If ``folder`` or ``licence`` is no text. When training starts, if ``licence`` is not one plain word.
    """

    def __init__(self, folder: str | None = None, licence: str = "unknown") -> None:
        if folder is not None:
            require_path("folder", folder)
        if not isinstance(licence, str):
            raise ValueError(f"licence must be an identifier such as apache-2.0 or unknown, got {licence!r}.")
        self.folder = folder
        self.licence = licence

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the card once for nothing: a mistake in its arguments should not wait for the end of training."""
        self._card(pl_module, "", self._told(trainer, pl_module, RAW)[1])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder, on the first process."""
        with averaged_weights(trainer, pl_module) as which:
            weights = trainer.strategy.lightning_module_state_dict()  # sharded strategies gather it from all processes
            weights = {name: tensor.clone() for name, tensor in weights.items()}
        said, described = self._told(trainer, pl_module, which)
        target = self.folder or shared_run_path(trainer) / "huggingface"
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, GAUAlphaModule)
        folder, model, data = Path(target), pl_module.model, _data(trainer)
        vocabulary, tokenizer = getattr(data, "vocabulary", None), getattr(data, "tokenizer", None)
        files = {} if tokenizer is None else fast_tokenizer_files(tokenizer_files(tokenizer))
        write_folder(
            folder,
            model.config,
            model.method,
            {name.removeprefix(MODEL_PREFIX): x for name, x in weights.items() if name.startswith(MODEL_PREFIX)},
            pl_module.train_length,
            getattr(vocabulary, "pad_id", None),
            *((model.describe_head(), model.labels) if isinstance(model, HeadedModel) else (None, ())),
        )
        files[CARD] = self._card(pl_module, folder.resolve().name, described)
        (folder / TRAINING_DATA).unlink(missing_ok=True)  # of what was there before
        if said is not None:
            files[TRAINING_DATA] = json.dumps(said, indent=2) + "\n"
        for name, text in files.items():
            write_atomic(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))  # type: ignore[misc]

    def run_if_already_trained(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make up for the folder, where a run was killed after its last step."""
        self.on_train_end(trainer, pl_module)

    def _told(
        self, trainer: Trainer, pl_module: LightningModule, weights: str
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Return what ``KnowsTrainingData`` says; where nobody knows, None and the classes of the data module."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it
        for one in callbacks:
            if isinstance(one, KnowsTrainingData):
                return one.training_data(trainer, pl_module, weights)
        data = _data(trainer)
        parts = {name: getattr(data, name, None) for name in ("source", "examples", "tokenizer")}
        described = {
            "class_path": _path_of(data),
            "init_args": {name: {"class_path": _path_of(part)} for name, part in parts.items() if part is not None},
        }
        return None, None if data is None else described

    def _card(self, pl_module: LightningModule, title: str, data: Mapping[str, Any] | None) -> str:
        assert isinstance(pl_module, GAUAlphaModule)
        model = pl_module.model
        head = model.describe_head() if isinstance(model, HeadedModel) else None
        return model_card(title, model.config, model.method, pl_module.train_length, self.licence, data, head=head)


def _data(trainer: Trainer) -> Any:
    # Any: Lightning declares no `datamodule`, and what a data module has beyond Lightning's own is its affair
    return getattr(trainer, "datamodule", None)


def _path_of(part: object) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"
