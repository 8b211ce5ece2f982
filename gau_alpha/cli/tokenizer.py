"""``gau-alpha tokenizer``: train a tokenizer on a corpus, or look into one."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from tokenizers import Tokenizer as LibraryTokenizer

from datamodules.sources import TextFiles, TextSource
from datamodules.tokenizers import Tokenizer, TokenizerFile, WordPieceVocab
from datamodules.tokenizers.training import KINDS, train_tokenizer
from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.cli.trust import set_import_rules
from gau_alpha.untrusted.escaping import printable

_TOLD_OF = 1_000_000
"""Characters that a trained tokenizer is tried on."""

EXAMPLE = "The quick brown fox, naïve 机器学习 [MASK] 12345."
"""The text that shows what a tokenizer does, if no other is given."""


def run_tokenizer(args: list[str]) -> int:
    """Run ``train`` or ``inspect``.

    Args:
        args: What follows ``tokenizer`` on the command line.

    Returns:
        The exit code.

    Raises:
        ValueError: If a setting does not make sense.
        SystemExit: With code 2, if the command line does not parse.
    """
    set_import_rules()
    parser = _Parser(prog="gau-alpha tokenizer", description="Train a tokenizer on a corpus, or look into one.")
    commands = parser.add_subcommands(dest="what")
    commands.add_subcommand("train", _training_parser(), help="learn a vocabulary from a corpus")
    commands.add_subcommand("inspect", _inspection_parser(), help="show what a tokenizer file holds and does")
    chosen = parser.parse_args(_with_text_files(args))
    options = parser.instantiate(chosen)[chosen.what]
    (_train if chosen.what == "train" else _inspect)(options)
    return 0


class _Parser(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Explain in one message, without the usage, and leave with code 2."""
        self.exit(2, printable(f"gau-alpha: error: {message}\n"))


def _training_parser() -> ArgumentParser:
    parser = _Parser(description="Learn a vocabulary from a corpus and save it as a tokenizer.json (TokenizerFile).")
    parser.add_argument("--config", action="config", help="YAML file with these options")
    parser.add_argument(
        "--source",
        type=TextSource,
        required=True,
        help="a file, folder or glob of plain text, or a source by class path, such as datamodules.JsonLines with "
        "--source.paths",
    )
    parser.add_argument("--kind", choices=KINDS, default="bpe", help="model of the tokenizer (default: %(default)s)")
    parser.add_argument("--vocab_size", type=int, required=True, help="number of tokens, special ones included")
    parser.add_argument("--lowercase", type=bool, default=False, help="lower-case the text first (default: false)")
    parser.add_argument("--output", type=str, required=True, help="file to write, such as tokenizer.json")
    return parser


def _inspection_parser() -> ArgumentParser:
    parser = _Parser(description="Show what a tokenizer.json or a BERT-style vocab.txt holds and how it splits a text.")
    parser.add_argument("file", type=str, help="the file; one that ends in .txt is read as a BERT-style vocabulary")
    parser.add_argument("--mask_token", type=str, default="[MASK]", help="name of the mask (default: %(default)s)")
    parser.add_argument("--pad_token", type=str, default="[PAD]", help="name of the padding (default: %(default)s)")
    parser.add_argument("--text", type=str, default=EXAMPLE, help="text to split (default: %(default)s)")
    return parser


def _with_text_files(args: list[str]) -> list[str]:
    """Let ``--source corpus/`` mean TextFiles; a name with dots that is nothing on the disk is a class path."""
    replaced: list[str] = []
    for arg in args:
        option, _, value = arg.partition("=") if arg.startswith("--source=") else ("", "", arg)
        is_source = option == "--source" or (replaced and replaced[-1] == "--source")
        if is_source and (Path(value).expanduser().exists() or set("*?/") & set(value)):
            if not option:
                replaced.pop()
            replaced += [f"--source={TextFiles.__module__}.{TextFiles.__qualname__}", f"--source.paths={value}"]
        else:
            replaced.append(arg)
    return replaced


def _train(options: Namespace) -> None:
    output = Path(options.output).expanduser()
    if output.is_dir():
        raise ValueError(
            f"output={options.output!r} is a folder. Name the file to write, such as tokenizer.json in it."
        )
    tokenizer = train_tokenizer(options.source, options.kind, options.vocab_size, options.lowercase)
    write_atomic(output, lambda path: tokenizer.save(str(path)))
    print(f"{output}: {options.kind}, {tokenizer.get_vocab_size()} tokens")
    print(_told(tokenizer, options.source))


def _told(tokenizer: LibraryTokenizer, source: TextSource) -> str:
    """Say what one compares tokenizers by, on the first documents of the corpus."""
    letters = tokens = unknown = 0
    used: set[int] = set()
    name = getattr(tokenizer.model, "unk_token", None)
    unknown_id = tokenizer.token_to_id(name or "[UNK]")
    for document in source.documents():
        ids = tokenizer.encode(document[: _TOLD_OF - letters], add_special_tokens=False).ids
        letters += min(len(document), _TOLD_OF - letters)
        tokens += len(ids)
        unknown += 0 if unknown_id is None else ids.count(unknown_id)
        used.update(ids)
        if letters >= _TOLD_OF:
            break
    return (
        f"on the first {letters:,} characters: {tokens / max(1, letters):.3f} tokens per character, "
        f"{unknown / max(1, tokens):.2%} unknown, {len(used) / tokenizer.get_vocab_size():.0%} of the vocabulary used"
    )


def _inspect(options: Namespace) -> None:
    kind = WordPieceVocab if options.file.endswith(".txt") else TokenizerFile
    tokenizer = kind(options.file, mask_token=options.mask_token, pad_token=options.pad_token)
    vocabulary = tokenizer.vocabulary
    (ids,) = tokenizer.encode_batch([options.text])
    unknown = "none" if tokenizer.unknown_id is None else str(tokenizer.unknown_id)
    lines = {
        "file": options.file,
        "read by": kind.__name__,
        "vocabulary": f"{vocabulary.size} ids, {len(vocabulary.special_ids)} of them special or unused",
        "mask": f"{options.mask_token} = {vocabulary.mask_id}",
        "padding": f"{options.pad_token} = {vocabulary.pad_id}",
        "unknown": unknown,
        "whole words": _words(tokenizer),
        "text": options.text,
        "tokens": " ".join(f"{tokenizer.decode([token])!r}" for token in ids.tolist()),
        "ids": " ".join(map(str, ids.tolist())),
        "back to text": tokenizer.decode(ids.tolist()),
    }
    width = max(map(len, lines))
    for name, value in lines.items():
        print(printable(f"{name.ljust(width)}  {value}"))


def _words(tokenizer: Tokenizer) -> str:
    try:
        table = tokenizer.word_table()
    except ValueError:
        return "unknown: its tokens do not tell where words begin"
    return f"known; {int(table.goes_on.sum())} tokens may go on with a word"
