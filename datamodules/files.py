"""Which files a source reads, what their bytes hash to, and how bytes become text."""

import bz2
import codecs
import errno
import glob
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from datamodules.arguments import require_kind, require_path, shown

MAX_CHARACTERS = 200_000_000
"""Most characters of a line, or of a file that is read whole, unless more are allowed; about as many bytes or more."""

_CHUNK_BYTES = 1 << 20
_NOT_THE_FILES_FAULT = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_LONGEST_CAUSE = 300


@contextmanager
def refusing(what: str, advice: str) -> Iterator[None]:
    """Turn whatever a library raises over a file into one message; only its calls belong in the ``with``.

    Libraries raise anything, down to ``IndexError``, over a file that is not what they expect. What is wrong with the
    machine, such as a failing disk, stays as it is.

    Args:
        what: The file, and what it was to be.
        advice: What to do.

    Raises:
        ValueError: If the library raises anything.
    """
    try:
        yield
    except MemoryError as error:
        raise ValueError(f"{what}: it asks for more memory than there is. {advice}") from error
    except OSError as error:
        if error.errno in _NOT_THE_FILES_FAULT:
            raise
        raise ValueError(f"{what} ({cause(error)}). {advice}") from error
    except BaseException as error:
        # Rust's panics are no Exception, and have no class that could be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{what} ({cause(error)}). {advice}") from error


def cause(error: BaseException) -> str:
    """Say in one line, and not at any length, what a library's error says."""
    text = " ".join(str(error).split())
    text = text if len(text) <= _LONGEST_CAUSE else f"{text[:_LONGEST_CAUSE]}…"
    text = text if text.isprintable() else repr(text)
    name = "" if type(error) in (ValueError, Exception) else type(error).__name__
    return ": ".join(filter(None, (name, text)))


def open_file(file: Path) -> BinaryIO:
    """Open a file for reading its bytes.

    Raises:
        ValueError: If it can't be opened.
    """
    with refusing(f"{file} can't be opened", "Correct the path or the file's permissions, or leave it out."):
        return file.open("rb")


def expand_paths(paths: Iterable[str]) -> list[Path]:
    """List the files that paths, folders and globs name: in the given order, each once, sorted within a folder or glob.

    Folders are read recursively; hidden files and folders in them are left out.

    Raises:
        ValueError: If one of the paths names no file.
    """
    files: dict[Path, None] = {}
    for path in paths:
        found = _expand(path)
        if not found:
            raise ValueError(
                f"{path!r} names no file (looked from {Path.cwd()}). Give an existing file, a folder with files in it, "
                "or a glob that matches some, such as 'corpus/**/*.txt'."
            )
        files.update(dict.fromkeys(found))
    return list(files)


def _expand(path: str) -> list[Path]:
    here = Path(path).expanduser()
    with refusing(f"{shown(path)} can't be looked for", "Give an existing file, a folder or a glob."):
        if here.is_file():
            return [here]
        if here.is_dir():
            inside = (file for file in here.rglob("*") if not _is_hidden(file.relative_to(here)))
        else:
            inside = (Path(match) for match in glob.glob(str(here), recursive=True))
        return sorted(file for file in inside if file.is_file())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def existing_file(path: str, what: str) -> Path:
    """Find the file that the argument ``path`` names.

    Args:
        path: The argument.
        what: What the file is to be, for the message.

    Raises:
        ValueError: If there is no such file.
    """
    require_path(path=path)
    file = Path(path).expanduser()
    with refusing(f"path={shown(path)} can't be looked for", f"Give the path of {what}."):
        is_file = file.is_file()
    if not is_file:
        raise ValueError(f"path={shown(path)} is no file (looked from {Path.cwd()}). Give the path of {what}.")
    return file


def hash_files(files: Iterable[Path], options: str) -> str:
    """Hash the bytes of files, in order, and the options they are read with. Names and times do not count.

    Args:
        files: The files.
        options: What else the result depends on.

    Returns:
        64 hexadecimal digits.
    """
    whole = hashlib.sha256(options.encode())
    for file in files:
        one = hashlib.sha256()
        with open_file(file) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                one.update(chunk)
        # Digests of single files, not their concatenation: where a file ends is where a document ends.
        whole.update(one.digest())
        # The one part of a name that decides what the bytes mean.
        if file.suffix in _OPENERS:
            whole.update(file.suffix.encode())
    return whole.hexdigest()


def read_chunks(file: Path) -> Iterator[bytes]:
    """Read a file piece by piece; ``.gz``, ``.bz2``, ``.xz`` and ``.zst`` are decompressed on the way.

    Raises:
        ValueError: If compressed data is damaged or cut short.
    """
    opener = _OPENERS.get(file.suffix)
    if opener is None:
        with open_file(file) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
        return
    num_bytes = 0
    try:
        with open_file(file) as raw, opener(raw) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                num_bytes += len(chunk)
                yield chunk
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's fault, not that of the content
            raise
        raise ValueError(
            f"{file} is damaged or cut short: after {num_bytes} bytes of text, decompressing stops with "
            f"{str(error)!r}. Copy or download the file again, or leave it out."
        ) from None


def read_text(file: Path, encoding: str, max_characters: int = MAX_CHARACTERS) -> str:
    """Read a whole text file. A byte order mark is dropped; line ends stay as they are.

    Args:
        file: The file, possibly compressed.
        encoding: Its encoding.
        max_characters: Most characters of the file.

    Raises:
        ValueError: If the bytes are not in that encoding, are not text, or are more.
    """
    chunks, num_characters = [], 0
    for chunk in _decoded(file, encoding):
        chunks.append(chunk)
        num_characters += len(chunk)
        _check_length(num_characters, max_characters, str(file))
    return "".join(chunks)


def read_lines(file: Path, encoding: str, max_characters: int = MAX_CHARACTERS) -> Iterator[tuple[int, str, bool]]:
    r"""Read a text file line by line; lines end with ``\n`` or ``\r\n``.

    Args:
        file: The file, possibly compressed.
        encoding: Its encoding.
        max_characters: Most characters of a line: a small compressed file may hold one that fills the memory.

    Yields:
        The line's number from 1, the line without its end, and whether it has an end: the last one may be cut short.

    Raises:
        ValueError: If the bytes are not in that encoding, are not text, or a line is longer.
    """
    number = num_characters = 0
    pieces: list[str] = []  # of a line that began in an earlier chunk
    for chunk in _decoded(file, encoding):
        *ended, rest = chunk.split("\n")
        for line in ended:
            number += 1
            _check_length(num_characters + len(line), max_characters, f"{file}, line {number}")
            yield number, "".join([*pieces, line]).removesuffix("\r"), True
            pieces, num_characters = [], 0
        pieces.append(rest)
        num_characters += len(rest)
        _check_length(num_characters, max_characters, f"{file}, line {number + 1}")
    last = "".join(pieces)
    if last:
        yield number + 1, last.removesuffix("\r"), False


def _check_length(num_characters: int, most: int, place: str) -> None:
    if num_characters > most:
        raise ValueError(
            f"{place}: more than max_characters={most}, which bounds what is held in memory at once. Raise it if the "
            "text is meant to be that long, or leave the file out."
        )


def estimate_lines(files: Sequence[Path]) -> int | None:
    """Guess the number of lines from the beginning of the first file; None where that has no line's end."""
    with open_file(files[0]) as raw:
        opener = _OPENERS.get(files[0].suffix)
        try:
            with opener(raw) if opener else nullcontext(raw) as stream:
                beginning = stream.read(_CHUNK_BYTES)
                num_read = raw.tell()  # compressed bytes, where the file is compressed
        except _DAMAGE:
            return None  # whoever reads the text will say where the damage is
    num_lines, num_bytes = beginning.count(b"\n"), sum(file.stat().st_size for file in files)
    return round(num_lines / num_read * num_bytes) if num_lines else None


def check_encoding(encoding: str) -> None:
    """Refuse the name of an encoding that does not exist.

    Raises:
        ValueError: If Python knows no such encoding of text.
    """
    try:
        "".encode(encoding)
        codecs.getincrementaldecoder(encoding)()
    except (LookupError, TypeError, ValueError):  # unknown, or no encoding of text, such as "hex", or none of files
        raise ValueError(
            f"encoding={shown(encoding)} is no encoding that Python knows. Use a name such as 'utf-8', 'utf-16', "
            "'gb18030' or 'latin-1'."
        ) from None


def as_list(paths: list[str] | str) -> list[str]:
    """Make a list of one or several paths.

    Raises:
        ValueError: If there is none, or one is no path.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    require_kind(list | tuple, paths=paths)
    if not paths:
        raise ValueError("paths=[] names no file. Give at least one file, folder or glob.")
    for number, path in enumerate(paths):
        require_path(**{f"paths[{number}]": path})
    return list(paths)


def _decoded(file: Path, encoding: str) -> Iterator[str]:
    """Decode a file chunk by chunk; the message of a failure counts bytes from the start of the (decompressed) file."""
    decoder = codecs.getincrementaldecoder(encoding)()
    first_byte = num_characters = 0
    start = b""
    for chunk, is_last in _with_last(read_chunks(file)):
        start = start or chunk[:4]
        pending = decoder.getstate()[0]
        try:
            text = decoder.decode(chunk, is_last)
        except UnicodeDecodeError as error:
            offset = first_byte - len(pending) + error.start
            byte = error.object[error.start]
            raise ValueError(
                f"{file} is not {encoding}: cannot decode byte 0x{byte:02x} at offset {offset} ({error.reason}). "
                f"{_advice(start, encoding)}"
            ) from None
        except UnicodeError as error:  # such as UTF-16 without its mark; no place is known
            raise ValueError(f"{file} is not {encoding}: {error}. {_advice(start, encoding)}") from None
        if num_characters == 0:
            text = text.removeprefix("\ufeff")
        if "\0" in text:
            raise ValueError(
                f"{file} has a NUL at character {num_characters + text.index(chr(0))}, so it is no {encoding} text. "
                f"{_advice(start, encoding)}"
            )
        first_byte += len(chunk)
        num_characters += len(text)
        yield text


def _advice(start: bytes, encoding: str) -> str:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "It begins like UTF-16: set `encoding` to 'utf-16', convert the file or leave it out."
    return (
        "If it is text in another encoding, set `encoding` (such as 'utf-16', or 'gb18030' for GBK); "
        f"else convert the file to {encoding} or leave it out."
    )


def _with_last(chunks: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Say of each chunk whether it is the last; an empty file has one, empty chunk."""
    before = next(chunks, b"")
    for chunk in chunks:
        yield before, False
        before = chunk
    yield before, True


_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": lambda file: pa.input_stream(pa.PythonFile(file, mode="r"), compression="zstd"),
}
_DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)
