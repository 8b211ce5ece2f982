"""Leaves the trained model as a Hugging Face folder."""

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
from gau_alpha.finetuning import HeadedModel
from gau_alpha.training.module import GAUAlphaModule
from gau_alpha.untrusted.limits import require_path


class ExportHuggingFace(Callback, CatchUpCallback):
    """Writes ``config.json``, ``model.safetensors``, the tokenizer and a model card when ``fit`` ends.

    The weights are those that training ends with, or their average where a ``WeightAveraging`` has begun one. For
    others, ``gau-alpha convert`` turns any checkpoint into such a folder.

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
        self._card(trainer, pl_module, "")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder, on the first process."""
        with averaged_weights(trainer, pl_module):
            weights = trainer.strategy.lightning_module_state_dict()  # sharded strategies gather it from all processes
            weights = {name: tensor.clone() for name, tensor in weights.items()}
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
        for name, text in {**files, CARD: self._card(trainer, pl_module, folder.resolve().name)}.items():
            write_atomic(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))  # type: ignore[misc]

    def run_if_already_trained(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make up for the folder, where a run was killed after its last step."""
        self.on_train_end(trainer, pl_module)

    def _card(self, trainer: Trainer, pl_module: LightningModule, title: str) -> str:
        assert isinstance(pl_module, GAUAlphaModule)
        model, data = pl_module.model, _data(trainer)
        parts = {name: getattr(data, name, None) for name in ("source", "examples", "tokenizer")}
        described = {
            "class_path": _path_of(data),
            "init_args": {name: {"class_path": _path_of(part)} for name, part in parts.items() if part is not None},
        }
        known = None if data is None else described
        head = model.describe_head() if isinstance(model, HeadedModel) else None
        return model_card(title, model.config, model.method, pl_module.train_length, self.licence, known, head=head)


def _data(trainer: Trainer) -> Any:
    # Any: Lightning declares no `datamodule`, and what a data module has beyond Lightning's own is its affair
    return getattr(trainer, "datamodule", None)


def _path_of(part: object) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"
