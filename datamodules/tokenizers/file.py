"""Tokenizers kept in the ``tokenizers`` library's own format."""

import hashlib

import tokenizers

from datamodules.files import existing_file, open_file
from datamodules.tokenizers.library import LibraryTokenizer, refusing_library


class TokenizerFile(LibraryTokenizer):
    """A tokenizer in the JSON format of the ``tokenizers`` library (``tokenizer.json`` on the Hugging Face hub).

    Truncation and padding set in the file are ignored: cutting into rows is the data module's job.
    ``gau-alpha tokenizer train`` makes such files.

    Args:
        path: The JSON file.
        mask_token: Name of the token that hides what the model has to predict.
        pad_token: Name of the token that fills rows.

    Raises:
        ValueError: If there is no such file, or it is no tokenizer of ``tokenizers`` with padding and mask.
    """

    def __init__(self, path: str, mask_token: str = "[MASK]", pad_token: str = "[PAD]") -> None:
        file = existing_file(path, "a tokenizer.json, as saved by `tokenizers.Tokenizer.save`")
        with open_file(file) as stream:
            self._content = stream.read()
        with refusing_library(path):
            tokenizer = tokenizers.Tokenizer.from_buffer(self._content)
        super().__init__(tokenizer, path, {}, mask_token, pad_token)

    def fingerprint(self) -> str:
        """Hash the file and the names of the special tokens."""
        names = f"TokenizerFile {self.mask_token} {self.pad_token} "
        return hashlib.sha256(names.encode() + self._content).hexdigest()
