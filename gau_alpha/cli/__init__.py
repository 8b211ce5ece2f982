"""The command line: ``gau-alpha COMMAND``. Nothing imports it.

``commands.py`` finds the function of a command and tells its errors. ``lightning.py`` holds the commands that train and
evaluate, ``parser.py`` how they are parsed, ``identity.py`` whether data and checkpoint belong together,
``arguments.py`` and ``checkpoint_defaults.py`` what they default to, ``trust.py`` which classes the user has named,
``trainer_limits.py`` what Lightning would take though nothing good can come of it, ``help.py`` what ``--help`` shows.
``methods.py``, ``tokenizer.py``, ``convert.py`` and ``fill_mask.py`` hold the commands of these names.
``stored_data.py`` and ``stored_tokenizer.py`` look up what a checkpoint names, ``shipped.py`` finds shipped YAML files
and presets, ``record.py`` writes what a run leaves beside its results.
"""


def main(args: list[str] | None = None) -> int:
    """Run a command.

    Args:
        args: The arguments; default: those of the process.

    Returns:
        The exit code; see ``gau_alpha.cli.commands.run_command``.
    """
    # Nothing is imported before ``__main__`` has taken the working directory out of the import path.
    import os.path
    import sys

    if os.path.splitext(os.path.basename(sys.argv[0]))[0] == "gau-alpha":
        # for the processes that multiprocessing and torch start, which else would look there first
        os.environ.setdefault("PYTHONSAFEPATH", "1")
    from gau_alpha.cli.commands import run_command

    return run_command(args)
