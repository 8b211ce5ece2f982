"""Documents tokenised once, then memory-mapped.

A cache is found by content: its key hashes what the source would yield, how the tokenizer would encode it, and the
format of the file. Nothing that only shapes rows (train length, mask rate, split) is part of it.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from filelock import FileLock
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.files import refusing
from datamodules.sources import TextSource
from datamodules.split import text_hash
from datamodules.tokenizers import Tokenizer

_FORMAT = 3
_FILE, _ABOUT = "documents.arrow", "about.json"
_SCHEMA = pa.schema({"input_ids": pa.large_list(pa.int32()), "text_hash": pa.uint64()})
# What is held in memory while tokenising: the first of the two to be reached, plus the document that reached it.
_BATCH_DOCUMENTS = 1024
_BATCH_CHARACTERS = 4_000_000
_MANY_UNKNOWN = 0.01


class Documents(Protocol):
    """Token ids of documents.

    Attributes:
        lengths: (documents,) number of tokens of each.
    """

    lengths: NDArray[np.int64]

    def __len__(self) -> int: ...

    def document(self, index: int) -> NDArray[np.int32]:
        """Return one document, (tokens,) int32."""


class TokenizedDocuments:
    """Memory-mapped token ids of every document; also readable with ``datasets.Dataset.from_file``.

    Args:
        folder: A finished cache folder.

    Attributes:
        lengths: (documents,) number of tokens of each.
        text_hashes: (documents,) hash of each one's text, whatever the tokenizer.

    Raises:
        ValueError: If the folder is not as it was written: a file gone, cut short, or of another layout.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with refusing(f"{folder} is no whole cache of tokens", "Delete that folder; the text is tokenised anew."):
            about = json.loads((folder / _ABOUT).read_text())
            table = pa.ipc.open_stream(pa.memory_map(str(folder / _FILE))).read_all()
            table.validate()  # whether its buffers are as large as it says
            if table.schema != _SCHEMA:
                raise ValueError(f"it holds {table.schema.names}")
            chunks = table.column("input_ids").chunks
            # Views of the mapped file, one per chunk of up to a thousand documents: no object per document.
            self._tokens = [chunk.values.to_numpy() for chunk in chunks]
            self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
            lengths = [np.diff(offsets) for offsets in self._offsets]
            for tokens, offsets, some in zip(self._tokens, self._offsets, lengths, strict=True):
                if (some < 0).any() or (len(offsets) and (offsets[0] < 0 or offsets[-1] > len(tokens))):
                    raise ValueError("documents lie outside of the tokens")
            self.lengths: NDArray[np.int64] = np.concatenate([*lengths, np.empty(0, dtype=np.int64)])
            hashes = [chunk.to_numpy() for chunk in table.column("text_hash").chunks]
            self.text_hashes: NDArray[np.uint64] = np.concatenate([*hashes, np.empty(0, dtype=np.uint64)])
            # A file that is cut between two chunks is a file.
            if [len(self.lengths), int(self.lengths.sum())] != [about["documents"], about["tokens"]]:
                raise ValueError(f"it is another number of documents or tokens than {_ABOUT} says")
        self._first_document = np.cumsum([0, *(len(chunk) for chunk in chunks)])

    def __len__(self) -> int:
        return len(self.lengths)

    def document(self, index: int) -> NDArray[np.int32]:
        """Return one document, (tokens,) int32: a read-only view, nothing is copied.

        Raises:
            IndexError: If there is no such document.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        chunk = int(np.searchsorted(self._first_document, index, side="right")) - 1
        start, end = self._offsets[chunk][index - self._first_document[chunk] :][:2]
        return self._tokens[chunk][start:end]

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        # A worker that is spawned maps the file again instead of receiving its content.
        return type(self), (self.folder,)


class JoinedDocuments:
    """The documents of several sources, one source behind the other.

    Args:
        parts: The sources' documents.

    Attributes:
        lengths: (documents,) number of tokens of each.
        text_hashes: (documents,) hash of each one's text.
    """

    def __init__(self, parts: Sequence[TokenizedDocuments]) -> None:
        self._parts = parts
        self._first_document = np.cumsum([0, *map(len, parts)])
        self.lengths: NDArray[np.int64] = np.concatenate([part.lengths for part in parts])
        self.text_hashes: NDArray[np.uint64] = np.concatenate([part.text_hashes for part in parts])

    def __len__(self) -> int:
        return len(self.lengths)

    def document(self, index: int) -> NDArray[np.int32]:
        """Return one document, (tokens,) int32: a read-only view, nothing is copied."""
        part = int(np.searchsorted(self._first_document, index, side="right")) - 1
        return self._parts[part].document(index - int(self._first_document[part]))


def tokenize(source: TextSource, tokenizer: Tokenizer, cache_dir: str | None = None) -> TokenizedDocuments:
    """Open the tokenised documents of a source, tokenising them first if no cache holds them.

    May be called by many processes at once: one tokenises, the others wait for it.

    Args:
        source: The text.
        tokenizer: Its encoding.
        cache_dir: Folder for all caches; None means ``gau_alpha_lightning`` in the user's cache folder.

    Raises:
        ValueError: If the source yields no text, the folder can't be written, or what lies in it is damaged.
    """
    root = Path(cache_dir).expanduser() if cache_dir is not None else _default_cache_dir()
    with _refusing(root):
        # The user's own texts are nobody else's business; a folder that is named may be shared on purpose.
        root.mkdir(mode=0o777 if cache_dir is not None else 0o700, parents=True, exist_ok=True)
    parts = {"format": _FORMAT, "source": source.fingerprint(), "tokenizer": tokenizer.fingerprint()}
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    folder = root / key
    if not folder.exists():
        lock = FileLock(root / f"{key}.lock")
        with _refusing(root):
            lock.acquire()
        try:
            if not folder.exists():  # still nobody made it while we waited for the lock
                _build(source, tokenizer, folder)
        finally:
            lock.release()
    return TokenizedDocuments(folder)


def _build(source: TextSource, tokenizer: Tokenizer, folder: Path) -> None:
    # We hold the lock, so whatever is unfinished was left by a process that was killed.
    for unfinished in folder.parent.glob(f"{folder.name}.unfinished-*"):
        shutil.rmtree(unfinished)
    with _refusing(folder.parent):
        place = tempfile.TemporaryDirectory(prefix=f"{folder.name}.unfinished-", dir=folder.parent)
    with place as workplace:
        made = Path(workplace) / "made"
        made.mkdir()
        counts = _write(source, tokenizer, made / _FILE)
        if counts["tokens"] == 0:
            raise ValueError(
                f"{type(source).__name__} yields {counts['documents']} documents and no text in them. "
                "Give a source with at least one document that is not empty."
            )
        _report(source, tokenizer, counts)
        about = {"source": type(source).__name__, "tokenizer": type(tokenizer).__name__, **counts}
        (made / _ABOUT).write_text(json.dumps(about, indent=2) + "\n")
        # Whole or not at all: the name appears only when every byte is on the disk.
        os.replace(made, folder)


def _write(source: TextSource, tokenizer: Tokenizer, file: Path) -> dict[str, int]:
    counts = {"documents": 0, "documents_without_text": 0, "tokens": 0, "unknown_tokens": 0}
    with _progress_bar() as progress, file.open("wb") as stream:
        task = progress.add_task("Tokenising", total=source.num_documents_hint())
        with pa.ipc.new_stream(stream, _SCHEMA) as writer:
            for texts in _batches(source):
                documents = tokenizer.encode_batch(texts)
                offsets = np.cumsum([0, *(len(document) for document in documents)], dtype=np.int64)
                tokens = np.concatenate(documents)
                column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(tokens))
                hashes = pa.array(np.array([text_hash(text) for text in texts], dtype=np.uint64))
                writer.write_batch(pa.record_batch([column, hashes], schema=_SCHEMA))
                counts["documents"] += len(documents)
                counts["documents_without_text"] += sum(not text for text in texts)
                counts["tokens"] += len(tokens)
                if tokenizer.unknown_id is not None:
                    counts["unknown_tokens"] += int(np.count_nonzero(tokens == tokenizer.unknown_id))
                progress.advance(task, len(documents))
        stream.flush()
        os.fsync(stream.fileno())
    return counts


def _report(source: TextSource, tokenizer: Tokenizer, counts: dict[str, int]) -> None:
    if counts["documents_without_text"]:
        rank_zero_info(
            f"{type(source).__name__}: {counts['documents_without_text']} of {counts['documents']} documents are "
            "blank; no row is made of them."
        )
    share = counts["unknown_tokens"] / counts["tokens"]
    if share > _MANY_UNKNOWN:
        rank_zero_warn(
            f"{type(tokenizer).__name__} does not know {share:.1%} of the tokens of {type(source).__name__}; they are "
            "read as unknown and never predicted. Is it the tokenizer for this text?"
        )


def _progress_bar() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), "documents", TimeRemainingColumn())
    # No bar where there is no terminal, so that log files stay readable.
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _batches(source: TextSource) -> Iterator[list[str]]:
    texts: list[str] = []
    characters = 0
    for text in source.documents():
        # Blank lines alone are not text that anybody means to train on.
        texts.append("" if text.isspace() else text)
        characters += len(text)
        if len(texts) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield texts
            texts, characters = [], 0
    if texts:
        yield texts


def _refusing(root: Path) -> AbstractContextManager[None]:
    return refusing(f"cache_dir={str(root)!r} can't be written", "Set `cache_dir` to a folder that can.")


def _default_cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gau_alpha_lightning"
