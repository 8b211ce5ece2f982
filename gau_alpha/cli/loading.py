"""``gau_alpha.load``: a checkpoint or folder opened in a notebook, with all that belongs to it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from datamodules.tokenizers import Tokenizer
from gau_alpha.attention.method import AttentionMethod
from gau_alpha.attention.presets import resolve_method
from gau_alpha.checkpoints import is_folder, read_checkpoint
from gau_alpha.checkpoints.folders import read_folder
from gau_alpha.cli.checkpoint_defaults import checkpoint_defaults
from gau_alpha.cli.stored_data import announce, data_of
from gau_alpha.cli.stored_tokenizer import tokenizer_in, tokenizer_of
from gau_alpha.finetuning.module import GAUAlphaFineTuning
from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.training.module import GAUAlphaModule
from gau_alpha.untrusted.registry import Description
from gau_alpha.untrusted.trust import trusting


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint, or a folder, holds.

    Attributes:
        model: With its weights, in evaluation mode.
        tokenizer: That it was trained with; ``tokenizer.encode(text)`` gives ids.
        train_length: Tokens per training row; None if a folder does not say it.
        described_data: What ``data`` is built of; None if nothing is known of it.
        path: Where it was read.
    """

    model: Any
    tokenizer: Tokenizer
    train_length: int | None
    described_data: Description | None
    path: Path

    @property
    def data(self) -> Any:
        """The data module of the run, built anew at each call; what it will read is told.

        Raises:
            ValueError: If the file does not say what data it was trained on, or an argument is refused.
        """
        if self.described_data is None:
            raise ValueError(f"{self.path} does not say what data it was trained on: build a module of `datamodules`.")
        announce(self.described_data, str(self.path))
        return self.described_data.build()

    def method(self, name: str) -> AttentionMethod:
        """Make the method that a name, such as ``infoscale``, stands for on this model.

        Args:
            name: A preset, a YAML of yours, or ``trained`` for the model's own.

        Raises:
            ValueError: If there is no such method, which lists those that there are; or train_length is not known.
        """
        if self.train_length is None:
            raise ValueError(
                f"{self.path} does not say train_length, which methods may need: build the method yourself."
            )
        return resolve_method(name, self.model.method, self.train_length)

    @contextmanager
    def using(self, name: str) -> Iterator[Any]:
        """Let the model use a method by name in a ``with`` block; see ``method``."""
        with self.model.using(self.method(name)) as model:
            yield model


def load(path: str | PathLike[str], trust: Sequence[str] = ()) -> Loaded:
    """Open a checkpoint, or a Hugging Face folder of a masked language model, with its tokenizer and data.

    Args:
        path: The file or folder.
        trust: Classes of your own that it may name, such as ``my_scaling.PowerLaw``; it can name no other.

    Raises:
        ValueError: If it can't be read, has no tokenizer that can be opened, or names a class that is neither ours nor
            trusted.
    """
    path = Path(path)
    with trusting(trust):
        if is_folder(path):
            tokenizer, length = tokenizer_in(path)[0], read_folder(path).train_length
            return Loaded(GAUAlphaForMaskedLM.from_pretrained(path), tokenizer, length, None, path)
        checkpoint = read_checkpoint(path)
        kind = GAUAlphaFineTuning if "head" in checkpoint_defaults(path).arguments else GAUAlphaModule
        module = kind.load_from_checkpoint(path, trust=trust)
        tokenizer = tokenizer_of(checkpoint, path)[0]
        return Loaded(module.model.eval(), tokenizer, module.train_length, data_of(checkpoint, str(path)), path)
