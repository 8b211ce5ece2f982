"""``gau-alpha COMMAND``: which function runs a command, and how its errors are told."""

import errno
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from gau_alpha.cli.arguments import limit_parsing, read_files
from gau_alpha.cli.trust import gather_trust, trust_of_command
from gau_alpha.untrusted.escaping import printable

BAD_NAMES = (
    errno.EACCES,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
"""What says of a file that it can't be used under the name that it was given."""

USAGE = """usage: gau-alpha COMMAND [options]

Pretrain GAU-α on short sequences and measure how far past its training length it still works.

commands (each has --help):
  fit          train a model from a YAML file
  validate     loss, perplexity and accuracy on the validation documents
  test         the same, under the name test
  predict      embed texts, or label them with a fine-tuned model, into a file
  extrapolate  evaluate checkpoints at multiples of their training length under many methods
  calibrate    measure the temperatures of the method calibrated for a checkpoint
  study        trainings over seeds, their evaluations and comparisons, from one file; one report
  methods      list the attention methods
  tokenizer    train a tokenizer on a corpus, or look into one
  convert      turn a checkpoint into a Hugging Face folder, or such a folder into a checkpoint
  fill-mask    what a model puts in the place of [MASK]

Of a checkpoint with averaged weights, all but fit read the average; --weights raw reads the trained ones.
"""
"""What ``gau-alpha --help`` prints."""


def run_command(args: list[str] | None = None) -> int:
    """Run a command.

    Args:
        args: The arguments; default: those of the process.

    Returns:
        The exit code: 0, 2 after a mistake of the user, 1 if the disk is full or a loss is not finite, or 130 after
        Ctrl-C; all are explained in one message on standard error. 141 where nobody reads what it prints any more.
    """
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    command = COMMANDS.get(args[0])
    if command is None:
        return _refuse(f"unknown command {args[0]!r}; choose one of: {', '.join(COMMANDS)}")
    # Only here, since they import torch: --help waits for nothing.
    from gau_alpha.checkpoints.atomic_write import NotWrittenError
    from gau_alpha.checkpoints.chosen_weights import choosing_weights, take_weights
    from gau_alpha.cli.shipped import with_shipped_files

    try:
        if command is _lightning:
            args = with_shipped_files(args)
        files = read_files(args, sections=command is _lightning)
        rest, names = gather_trust(args)
        rest, weights = take_weights(rest)
        names_classes = command in (_lightning, _tokenizer)  # by options and YAMLs; the others by --trust alone
        typed, files = (rest, files) if names_classes else ([], {})
        chosen = nullcontext() if rest[0] == "fit" else choosing_weights(weights)
        with _escaped(), trust_of_command(typed, files, names), chosen:
            if names and command is _lightning:
                rest.append(f"--trust=[{','.join(names)}]")  # Lightning's commands keep it in the run's config
            if command is _study:
                rest += [f"--trust={name}" for name in names]  # for the commands that it runs
            return command(rest)
    except ValueError as error:
        if _is_internal(error) and "embedded null" not in str(error):  # in the name of a file
            raise
        return _refuse(str(_cause(error)))
    except KeyboardInterrupt:
        print("gau-alpha: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        return 128 + signal.SIGPIPE
    except NotWrittenError as error:
        _refuse(str(error))
        return 1
    except OSError as error:
        if error.errno not in BAD_NAMES or error.filename is None:
            raise
        return _refuse(f"{error.filename}: {error.strerror}")


def _lightning(args: list[str]) -> int:
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from callbacks.nonfinite import NotFiniteError
    from gau_alpha.cli.lightning import run

    limit_parsing()
    try:
        run(args)
    except NotFiniteError as error:
        _refuse(str(error))
        return 1
    except (MisconfigurationException, RuntimeError) as error:
        # such as the name of a metric that nothing logs; torch's own errors are raised elsewhere
        if isinstance(error, MisconfigurationException) or _origin(error) == "lightning":
            raise ValueError(str(error)) from error
        raise
    return 0


def _study(args: list[str]) -> int:
    from gau_alpha.cli.study import run_study

    return run_study(args[1:])


def _methods(args: list[str]) -> int:
    from gau_alpha.cli.methods import print_methods

    return print_methods(args[1:])


def _tokenizer(args: list[str]) -> int:
    from gau_alpha.cli.tokenizer import run_tokenizer

    limit_parsing()
    return run_tokenizer(args[1:])


def _convert(args: list[str]) -> int:
    from gau_alpha.cli.convert import convert

    return convert(args[1:])


def _fill_mask(args: list[str]) -> int:
    from gau_alpha.cli.fill_mask import fill_mask

    return fill_mask(args[1:])


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "fit": _lightning,
    "validate": _lightning,
    "test": _lightning,
    "predict": _lightning,
    "extrapolate": _lightning,
    "calibrate": _lightning,
    "study": _study,
    "methods": _methods,
    "tokenizer": _tokenizer,
    "convert": _convert,
    "fill-mask": _fill_mask,
}
"""Functions by the command that they serve; they return the exit code."""


def _refuse(message: str) -> int:
    print(printable(f"gau-alpha: error: {message}"), file=sys.stderr)
    return 2


@contextmanager
def _escaped() -> Iterator[None]:
    """Escape what warnings and log lines say in this ``with`` block: they quote files."""
    show, make = warnings.showwarning, logging.getLogRecordFactory()

    def show_escaped(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        text = printable(str(message))
        show(message if text == str(message) else text, *args, **kwargs)

    def make_escaped(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.msg, record.args = printable(record.getMessage()), None
        return record

    warnings.showwarning = show_escaped
    logging.setLogRecordFactory(make_escaped)
    try:
        yield
    finally:
        warnings.showwarning = show
        logging.setLogRecordFactory(make)


def _is_internal(error: ValueError) -> bool:
    """Say whether an error comes from a library's depths instead of a check that was written for users."""
    return _origin(error) not in ("gau_alpha", "datamodules", "callbacks", "jsonargparse", "lightning")


def _cause(error: BaseException) -> BaseException:
    """Find what a class's own check said: jsonargparse wraps it in all types and values that were tried."""
    inner: BaseException | None = error
    while inner is not None and _origin(inner) == "jsonargparse":
        inner = inner.__cause__
    return error if inner is None else inner


def _origin(error: BaseException) -> str:
    """Return the package that raised an error."""
    module: Any = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
    return str(module).split(".")[0]
