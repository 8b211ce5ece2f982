"""Documents tokenised once, then memory-mapped.

A cache is found by content: its key hashes what the source would yield, how the tokenizer would encode it, and the
format of the file. Nothing that only shapes rows (train length, mask rate, split) is part of it.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, overload

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
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


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
        about: What was counted when it was made.

    Raises:
        ValueError: If the folder is not as it was written: a file gone, cut short, or of another layout.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with refusing(f"{folder} is no whole cache of tokens", "The text has to be tokenised anew."):
            about = json.loads((folder / _ABOUT).read_text())
            if not all(isinstance(line, str) for line in about["left_out"]):
                raise ValueError(f"{_ABOUT} does not say what was left out")
            if not all(isinstance(about[name], int) for name in ("documents_without_text", "unknown_tokens")):
                raise ValueError(f"{_ABOUT} does not say what was counted")
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
        self.about: dict[str, Any] = about
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


class WholeDocuments(Sequence[NDArray[np.int64]]):
    """Some documents, whole, read from the cache when asked for.

    Args:
        documents: The tokens of all documents.
        selected: (documents used,) which of them.
    """

    def __init__(self, documents: Documents, selected: NDArray[np.int64]) -> None:
        self._documents = documents
        self._selected = selected

    def __len__(self) -> int:
        return len(self._selected)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.int64]: ...

    @overload
    def __getitem__(self, index: slice) -> "WholeDocuments": ...

    def __getitem__(self, index: int | slice) -> "NDArray[np.int64] | WholeDocuments":
        if isinstance(index, slice):
            return WholeDocuments(self._documents, self._selected[index])
        # A copy: PyTorch wants int64, and memory that can be written to.
        return self._documents.document(int(self._selected[index])).astype(np.int64)


def tokenize(
    source: TextSource, tokenizer: Tokenizer, cache_dir: str | None = None, tell: bool = True
) -> TokenizedDocuments:
    """Open the tokenised documents of a source, tokenising them first if no cache holds them whole.

    May be called by many processes at once: one tokenises, the others wait for it. A cache that is damaged, or of
    another layout, is made anew.

    Args:
        source: The text.
        tokenizer: Its encoding.
        cache_dir: Folder for all caches; None means ``gau_alpha_lightning`` in the user's cache folder.
        tell: Whether to say what is blank, unknown or left out, be it read now or when the cache was made.

    Raises:
        ValueError: If the source yields no text, the folder can't be written, or what lies in it can't be read nor
            replaced.
    """
    root = Path(cache_dir).expanduser() if cache_dir is not None else _default_cache_dir()
    with _refusing(root):
        # The user's own texts are nobody else's business; a folder that is named may be shared on purpose.
        root.mkdir(mode=0o777 if cache_dir is not None else 0o700, parents=True, exist_ok=True)
    parts = {"format": _FORMAT, "source": source.fingerprint(), "tokenizer": tokenizer.fingerprint()}
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    folder = root / key
    documents, is_new = _opened(folder), False
    if documents is None:
        lock = FileLock(root / f"{key}.lock")
        with _refusing(root):
            lock.acquire()
        try:
            documents = _opened(folder, tell=True)  # perhaps somebody made it while we waited for the lock
            if documents is None:
                _remove(folder)
                _build(source, tokenizer, folder)
                documents, is_new = TokenizedDocuments(folder), True
        finally:
            lock.release()
    if tell:
        _report(source, tokenizer, documents.about, is_new)
    return documents


def _opened(folder: Path, tell: bool = False) -> TokenizedDocuments | None:
    """Open a cache; None if there is none, or none that is whole, which may be told."""
    if not os.path.lexists(folder):
        return None
    try:
        return TokenizedDocuments(folder)
    except ValueError as error:
        if tell:
            rank_zero_warn(str(error))
        return None


def _remove(folder: Path) -> None:
    """Make room for a cache where a damaged one lies.

    Raises:
        ValueError: If it can't be removed, such as that of another user.
    """
    if not os.path.lexists(folder):
        return
    with refusing(
        f"{folder} is no whole cache of tokens that can be read, and can't be removed",
        "Delete it, or set `cache_dir` to a folder of your own.",
    ):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink()


def _build(source: TextSource, tokenizer: Tokenizer, folder: Path) -> None:
    # We hold the lock, so whatever is unfinished was left by a process that was killed.
    for unfinished in folder.parent.glob(f"{folder.name}.unfinished-*"):
        _remove(unfinished)
    with _refusing(folder.parent):
        place = tempfile.TemporaryDirectory(prefix=f"{folder.name}.unfinished-", dir=folder.parent)
    with _room(folder.parent), place as workplace:
        made = Path(workplace) / "made"
        made.mkdir()
        counts = _write(source, tokenizer, made / _FILE)
        if counts["tokens"] == 0:
            raise ValueError(
                f"{type(source).__name__} yields {counts['documents']} documents and no text in them. "
                "Give a source with at least one document that is not empty."
            )
        about = {"source": type(source).__name__, "tokenizer": type(tokenizer).__name__, **counts}
        about["left_out"] = list(source.left_out)
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


def _report(source: TextSource, tokenizer: Tokenizer, about: dict[str, Any], is_new: bool) -> None:
    for line in () if is_new else about["left_out"]:  # a source says it itself where it is read
        rank_zero_warn(line)
    if about["documents_without_text"]:
        rank_zero_info(
            f"{type(source).__name__}: {about['documents_without_text']} of {about['documents']} documents are "
            "blank; no row is made of them."
        )
    share = about["unknown_tokens"] / about["tokens"]
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


@contextmanager
def _refusing(root: Path) -> Iterator[None]:
    with _room(root), refusing(f"cache_dir={str(root)!r} can't be written", "Set `cache_dir` to a folder that can."):
        yield


@contextmanager
def _room(root: Path) -> Iterator[None]:
    """Say in one message that the disk is full.

    Raises:
        ValueError: If it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ValueError(
            f"cache_dir={str(root)!r} has no room for the tokens ({error.strerror}). Free some, or set `cache_dir` to "
            "a folder on another disk."
        ) from error


def _default_cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gau_alpha_lightning"
