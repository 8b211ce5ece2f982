"""What a user reads who has made a mistake on the command line."""

from collections.abc import Sequence
from typing import Any

from gau_alpha.cli import main


def refused(capsys: Any, args: Sequence[str]) -> str:
    """Run a command that must end with exit code 2 and one message, and return that message."""
    capsys.readouterr()
    try:
        code = main([*args])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2, error
    assert error.count("gau-alpha: error: ") == 1
    assert "Traceback" not in error
    return error[error.index("gau-alpha: error: ") :]
