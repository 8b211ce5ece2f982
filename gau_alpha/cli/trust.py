"""Which classes of their own a user has named on the command line: files may then name them, too."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gau_alpha.cli.arguments import options
from gau_alpha.untrusted.reading import parse_yaml
from gau_alpha.untrusted.trust import is_class_path, named_classes, trusting, user_modules

OPTION = "--trust"
"""The option by which a user names a class of their own."""

NAMING = ("--model", "--data", "--trainer", "--source")
"""What options begin with whose values may be classes; a text or a file's name may look like one."""

TRUST = """A class of your own, by module and name, that files may name: a checkpoint that was trained with it, say.
Repeatable. Classes that you name in this command, in a YAML or by an option, need no --trust. What it means: the module
is imported, from the working directory if it is not installed, and its code is run."""
"""The help of ``--trust``."""


def gather_trust(args: list[str]) -> tuple[list[str], list[str]]:
    """Take ``--trust NAME`` and ``--trust=NAME``, repeated as often as one likes, out of the arguments.

    Args:
        args: The command and its options.

    Returns:
        The other arguments, and the names.

    Raises:
        ValueError: If an option has no value, or one that is no class path.
    """
    rest, names, words = [], [], iter(args)
    for word in words:
        option, equals, value = word.partition("=")
        if option != OPTION:
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if not is_class_path(value):
            raise ValueError(f"--trust takes a class by module and name, such as my_scaling.PowerLaw; got {value!r}.")
        names.append(value)
    return rest, names


@contextmanager
def trust_of_command(args: list[str], files: Mapping[Path, Any], names: list[str]) -> Iterator[None]:
    """Trust what the user has named in a command, and nothing else, in this ``with`` block.

    Modules are looked for in the working directory and in the folders of the YAML files, behind all that is installed.

    Args:
        args: The command and its options.
        files: What the YAML files hold that it names, and that these name.
        names: What ``--trust`` named.
    """
    typed = [_parsed(value) for option, value in options(args) if option.startswith(NAMING)]
    named = named_classes([*files.values(), *typed]).union(names)
    folders = list(dict.fromkeys([Path.cwd(), *(file.parent for file in files)]))
    with trusting(named), user_modules(folders, named):
        yield


def set_import_rules() -> None:
    """Let jsonargparse refuse what no value may name (os, subprocess, builtins.eval, …), and build nothing unasked.

    These are rules for what the user types. What a file says has been through our own tables before.
    """
    from jsonargparse import set_parsing_settings  # which not every command needs

    set_parsing_settings(import_path_denylist=["pickle"], instantiate_subclass_spec_in_any=False)


def _parsed(value: str) -> object:
    """Parse the value of an option as far as it is YAML; a name, or a text in another form, stays as it is."""
    if not value.startswith(("[", "{")):
        return value
    try:
        return parse_yaml(value, "an option")
    except ValueError:  # which jsonargparse explains, if it was meant as YAML
        return value
