"""Which files a source reads, and what their bytes hash to."""

import glob
import hashlib
from collections.abc import Iterable
from pathlib import Path

_CHUNK_BYTES = 1 << 20


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
    if here.is_file():
        return [here]
    if here.is_dir():
        inside = (file for file in here.rglob("*") if not _is_hidden(file.relative_to(here)))
    else:
        inside = (Path(match) for match in glob.glob(str(here), recursive=True))
    return sorted(file for file in inside if file.is_file())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def hash_files(files: Iterable[Path], options: str) -> str:
    """Hash the bytes of files, in order, and the options they are read with. Names and times do not count."""
    whole = hashlib.sha256(options.encode())
    for file in files:
        one = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                one.update(chunk)
        # Digests of single files, not their concatenation: where a file ends is where a document ends.
        whole.update(one.digest())
    return whole.hexdigest()


def decode_bytes(content: bytes, encoding: str, file: Path, first_byte: int = 0) -> str:
    """Decode bytes of a file.

    Args:
        content: The bytes.
        encoding: Their encoding.
        file: Where they come from, for the error message.
        first_byte: Where in the file they start, for the error message.

    Raises:
        ValueError: If the bytes are not in that encoding.
    """
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not {encoding}: cannot decode byte 0x{content[error.start]:02x} at offset "
            f"{first_byte + error.start} ({error.reason}). Convert the file to {encoding} or leave it out."
        ) from None
