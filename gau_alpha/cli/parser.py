"""The parser of a command: presets by name, a help that fits on a screen, errors of one message."""

from argparse import Action
from typing import Any, NoReturn

from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

from gau_alpha.attention.method import AXES
from gau_alpha.attention.presets import known_strategies
from gau_alpha.cli.help import SECTIONS, section_of, short_help
from gau_alpha.cli.shipped import method_named
from gau_alpha.cli.stored_data import DATA
from gau_alpha.training.compatibility import FORMER, MODULES
from gau_alpha.training.optimizers import OptimizerFactory
from gau_alpha.training.schedules import Schedule
from gau_alpha.untrusted.escaping import printable


class Parser(LightningArgumentParser):
    """A parser whose data may come from a checkpoint, and that knows presets.

    It lists the known strategies when one is misspelt, and its help has room for a command's own options.
    """

    def add_lightning_class_args(
        self, lightning_class: Any, nested_key: str, subclass_mode: bool = False, required: bool = True
    ) -> list[str]:
        """Add a class; none is required at first, since a checkpoint may say which it is."""
        return super().add_lightning_class_args(lightning_class, nested_key, subclass_mode, required=False)

    def _check_value_key(self, action: Action, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Let a YAML name a preset: all that a file says comes through here, each value with its action.

        A public ``type=`` can't: jsonargparse takes the type of a class's argument from its signature.
        """
        if action.dest == "model.method" and isinstance(value, str):
            value = method_named(value)
        return super()._check_value_key(action, value, *args, **kwargs)

    def format_help(self, *args: Any, everything: bool = False) -> str:
        """Show the help on one screen, or all of it: the command's own options before those of the sections.

        Args:
            *args: What a newer Python hands over.
            everything: Whether to explain each option.
        """
        if not everything:
            return short_help(self.usage or "", self.description or "", self._actions)
        order = [None, *SECTIONS]
        self._action_groups = sorted(
            self._action_groups,
            key=lambda group: max(map(order.index, map(section_of, group._group_actions)), default=0),
        )
        return super().format_help(*args)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Explain in one message, without the hundred options of the usage, and leave with code 2.

        Args:
            message: What is wrong.
            ex: The error behind it; the message says it all.
        """
        if "model.method" in message or any(f'"{axis}"' in message for axis in AXES):
            message = f"{message}\nknown strategies\n{known_strategies()}"
        for place, base in (("optimizer", OptimizerFactory), ("schedule", Schedule)):
            if f"model.{place}" in message:
                message = f"{message}\nknown {place}s: {', '.join(MODULES.names(base))}"
        if message.startswith('Parser key "data":'):
            known = ", ".join(DATA.names(LightningDataModule))
            message = f"{message}\nknown data modules: {known}; a source is named by --data.source"
        if any(f"model.{name}" in message for name in FORMER):
            message = f"{message}\nrates are arguments of the optimizer, as in --model.optimizer.learning_rate 1e-3"
        self.exit(2, printable(f"gau-alpha: error: {message}\n"))
