"""``gau-alpha COMMAND --help`` on one screen, and ``--help_all``: what belongs to the command comes first."""

import re
import shutil
from argparse import SUPPRESS, Action, _HelpAction
from collections.abc import Sequence
from textwrap import TextWrapper
from typing import Any

SECTIONS = {"model": "the model and its optimizer", "data": "the data module", "trainer": "Lightning's Trainer"}
"""Parts of a run that fill a page each, in the order in which they are shown; also the sections of a YAML."""

COMMON = {
    "config": "A YAML file with settings. Repeatable: what comes later wins.",
    "seed_everything": "Seed of weights and dropout; the data has its own.",
    "auto_resume": "",
    "trust": "",
    "print_config": "Print all settings as a YAML, and exit.",
    "help": "Show this help, and exit.",
    "help_all": "",
}
"""What every command has, in the order in which it is shown, in words that take the place of the library's."""

LEFT_OUT = ("weights_only",)
"""What Lightning's commands take and nobody needs here: our checkpoints hold plain data."""


class HelpAll(_HelpAction):
    """The option ``--help_all``."""

    def __call__(self, parser: Any, namespace: object, values: object, option_string: str | None = None) -> None:
        """Explain every option, and leave."""
        print(parser.format_help(everything=True), end="")
        parser.exit()


def short_help(usage: str, description: str, actions: Sequence[Action]) -> str:
    """Show the options of a command by the first sentence of their help, and of the sections little but their names.

    Args:
        usage: How the command is called.
        description: What it does.
        actions: All its options.
    """
    actions = [action for action in actions if action.option_strings and action.option_strings[0].startswith("-")]
    width = max(80, min(120, shutil.get_terminal_size().columns))
    shown = {action.dest: action for action in actions if not section_of(action)}
    own = [action for name, action in shown.items() if name not in COMMON and name not in LEFT_OUT]
    names = {section: _settings(section, actions) for section in SECTIONS}
    parts = {
        "options of this command": [(_names(action), _explanation(action)) for action in own],
        "options of every command": [(_names(shown[name]), _explanation(shown[name])) for name in COMMON],
        "sections of a YAML, and options such as --trainer.max_steps; --help_all explains them": [
            (f"--{section}", f"{title}: {', '.join(names[section])}") for section, title in SECTIONS.items()
        ],
    }
    column = 4 + max(len(option) for lines in parts.values() for option, _ in lines)
    wrapper = TextWrapper(width, subsequent_indent=" " * column, max_lines=3, placeholder=" …", break_on_hyphens=False)
    text = [f"usage: {usage}", "", _first_sentence(description)]
    for title, lines in parts.items():
        text += ["", f"{title}:", *(wrapper.fill(f"  {option}".ljust(column) + said) for option, said in lines)]
    return "\n".join(text) + "\n"


def section_of(action: Action) -> str | None:
    """Say which of ``SECTIONS`` an option belongs to; None: to the command itself.

    Args:
        action: The option.
    """
    first = action.dest.partition(".")[0]
    return first if first in SECTIONS else None


def _settings(section: str, actions: Sequence[Action]) -> list[str]:
    """Name what a section holds, and ``class_path`` where it is any class."""
    inside = [action.dest.split(".") for action in actions if section_of(action) == section]
    names = dict.fromkeys(parts[1] for parts in inside if len(parts) > 1 and parts[1] != "help")
    return list(names) or ["class_path", "init_args"]


def _names(action: Action) -> str:
    return ", ".join(name for name in action.option_strings if not name.endswith("+"))


def _explanation(action: Action) -> str:
    text = COMMON.get(action.dest) or _first_sentence(action.help or "")
    said = action.dest in COMMON or action.default in (None, SUPPRESS)
    return text if said else f"{text} (default: {action.default})"


def _first_sentence(text: str) -> str:
    text = " ".join(text.replace("%%", "%").replace("``", "").split())
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]
