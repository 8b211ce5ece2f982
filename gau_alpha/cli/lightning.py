"""LightningCLI for GAU-α: ``fit``, ``validate``, ``test``, ``predict``, ``extrapolate``, ``calibrate``.

What the user types or puts in a YAML wins over what a checkpoint remembers, and that over the defaults.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any

import torch.distributed as dist
import yaml
from jsonargparse import dict_to_namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.prediction_progress import PredictionProgress
from callbacks.predictions import PredictionWriter
from callbacks.recovery import installed_callbacks
from callbacks.recovery.identity import RunIdentity
from callbacks.recovery.resume import AUTO_RESUME, fix_version
from callbacks.recovery.start import OVERWRITE, start_run
from callbacks.refused import check_callbacks
from gau_alpha.checkpoints import is_folder, read_checkpoint, read_evaluated, read_training_state
from gau_alpha.checkpoints.io import WholeCheckpointIO
from gau_alpha.checkpoints.training_state import ended_inside_epoch
from gau_alpha.cli.arguments import checkpoint_in, replacing_data, start_in
from gau_alpha.cli.checkpoint_defaults import checkpoint_defaults, defaults_from, defaults_to_start, names_head
from gau_alpha.cli.help import HelpAll
from gau_alpha.cli.identity import ALLOW_MISMATCH, after_parent, check_belongs, check_each
from gau_alpha.cli.parser import Parser
from gau_alpha.cli.record import RunRecord, changes
from gau_alpha.cli.splits import with_splits
from gau_alpha.cli.stored_data import announce, run_of
from gau_alpha.cli.stored_tokenizer import carried_in_place_of, tokenizer_class_in
from gau_alpha.cli.trainer import CheckpointData, GAUAlphaTrainer
from gau_alpha.cli.trainer_limits import check_environment, check_trainer
from gau_alpha.cli.trust import TRUST, set_import_rules
from gau_alpha.finetuning.module import GAUAlphaFineTuning
from gau_alpha.training.module import GAUAlphaModule
from gau_alpha.untrusted.escaping import printable
from gau_alpha.untrusted.limits import require_whole

LISTS = ("--ckpt_path", "--methods", "--length_ratios", "--calibrations", "--protocol")
"""Options of ``EVALUATIONS`` that take several words."""

EVALUATIONS = ("extrapolate", "calibrate")
"""Commands that read checkpoints and train nothing: they log nothing and draw a progress bar of their own."""


def run(args: list[str]) -> None:
    """Run one of Lightning's commands.

    Args:
        args: The command and its options, with shipped files by their paths.

    Raises:
        ValueError: If a setting does not make sense.
        SystemExit: With code 2, if the command line or a YAML does not parse.
    """
    set_import_rules()
    check_environment(args[0], os.environ)
    fine_tunes = names_head(args)
    if fine_tunes and args[0] in EVALUATIONS:
        raise ValueError(
            f"{args[0]} measures how hidden tokens are predicted, and a model with a head for another task predicts "
            f"none. How it does on long texts says `gau-alpha validate` with data.evaluation_length null."
        )
    with restoring_explained(), ExitStack() as held:
        (FineTuningCLI if fine_tunes else GAUAlphaCLI)(
            GAUAlphaFineTuning if fine_tunes else GAUAlphaModule,
            LightningDataModule,
            subclass_mode_data=True,
            trainer_class=GAUAlphaTrainer,
            # An evaluation's report says how it was made.
            save_config_callback=None if args[0] in EVALUATIONS else RunRecord,
            parser_class=Parser,
            parser_kwargs={"prog": "gau-alpha"},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # the module itself keeps its arguments, as plain data
            args=gather_lists(args) if args[0] in EVALUATIONS else args,
            held=held,
        )
    if dist.is_available() and dist.is_initialized():
        # Ends gloo's threads. One that lets go of a tensor while Python itself is ending aborts the process ("terminate
        # called without an active exception"), with all work done; seen where a process ended right after a collective.
        # Under FSDP the threads stay, since torch's caches of shardings hold the group: idle by then, but not ended.
        dist.destroy_process_group()


@contextmanager
def restoring_explained() -> Iterator[None]:
    """Say in one message that a checkpoint's training state can't be restored: Lightning takes it as it is.

    Raises:
        ValueError: In the place of whatever Lightning, or an optimizer, meets in it.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError, RuntimeError, ValueError, ArithmeticError) as error:
        frames = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
        explained = isinstance(error, ValueError) and frames[-1].startswith(
            ("gau_alpha.", "datamodules.", "callbacks.")
        )
        if explained or not any(name.endswith("connectors.checkpoint_connector") for name in frames):
            raise
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"The checkpoint can't be gone on from, its training state can't be restored: {said}"
        ) from error


def gather_lists(args: list[str]) -> list[str]:
    """Write ``--methods a b`` as ``--methods=[a,b]``, which is how jsonargparse wants a list.

    A single word that is written as a list, ``--methods '[a, b]'``, is one.
    """
    gathered: list[str] = []
    words: list[str] | None = None
    for arg in [*args, "--"]:
        if words is not None and not arg.startswith("--"):
            words.append(arg)
            continue
        if words is not None:
            is_list = len(words) == 1 and words[0].startswith("[") and words[0].endswith("]")
            gathered[-1] += f"={words[0]}" if is_list else f"=[{','.join(words)}]"
            words = None
        if arg in LISTS:
            words = []
        gathered.append(arg)
    return gathered[:-1]


class GAUAlphaCLI(LightningCLI):
    """LightningCLI with ``extrapolate``, links from data to model, and the precedence stated above.

    It runs the command when it is made.

    Args:
        *args: Lightning's.
        held: Gets what is to be let go of once the command has ended, however it ends.
        **kwargs: Lightning's.
    """

    def __init__(self, *args: Any, held: ExitStack, **kwargs: Any) -> None:
        self._held = held
        super().__init__(*args, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the data knows to the model, and offer ``auto_resume``."""
        parser.add_argument("--help_all", action=HelpAll, help="Show all options and exit.")
        parser.add_argument("--auto_resume", type=bool, default=False, help=AUTO_RESUME)
        parser.add_argument("--allow_mismatch", type=bool, default=False, help=ALLOW_MISMATCH)
        parser.add_argument("--overwrite", type=bool, default=False, help=OVERWRITE)
        parser.add_argument("--trust", type=list[str], default=[], help=TRUST)
        # so that --model.optimizer.learning_rate needs no class named before it
        module: Any = self.model_class
        chosen = {"optimizer": module.default_optimizer(), "schedule": module.default_schedule()}
        parser.set_defaults({f"model.{name}": one.describe() for name, one in chosen.items()})
        parser.link_arguments("data.init_args.train_length", "model.train_length")
        parser.link_arguments(
            "data.vocabulary",
            "model.config.vocab_size",
            compute_fn=lambda vocabulary: vocabulary.size,
            apply_on="instantiate",
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Name the commands and the arguments that don't come from the command line."""
        return {**LightningCLI.subcommands(), **{name: {"model", "datamodule"} for name in EVALUATIONS}}

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        # add_arguments_to_parser, which is public, is not told the command; no issue of Lightning's asks for it yet.
        usage = f"gau-alpha {subcommand}{' --ckpt_path FILE' if subcommand in EVALUATIONS else ''} [options]"
        parser = super()._prepare_subcommand_parser(klass, subcommand, usage=usage, **kwargs)
        if subcommand in EVALUATIONS:
            quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
            parser.set_defaults({f"trainer.{name}": False for name in quiet})
        if subcommand == "predict":
            parser.add_lightning_class_args(PredictionWriter, "predictions")
            # What is written needs no copy in memory; nothing is logged.
            parser.set_defaults({"return_predictions": False, "trainer.logger": False})
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse over the values that a checkpoint remembers, if one is named.

        Args:
            parser: The parser.
            args: The command and its options.

        Raises:
            ValueError: If there is no data, or not all generators take the seed.
        """
        assert isinstance(args, list), "run() passes the arguments"
        subcommand, path, stored = args[0], checkpoint_in(args), None
        # A keyword such as "last" is looked up by Lightning, later; the config then has to name the model.
        if path and (Path(path).is_file() or subcommand in EVALUATIONS):
            found = checkpoint_defaults(Path(path))
            if subcommand != "fit":  # whose record would name a file that is gone again
                self._held.enter_context(carried_in_place_of(found.tokenizer, found.carried, path))
            self._subcommand_parsers[subcommand].set_defaults(defaults_from(found))
            stored = found.data
        elif (start := start_in(args)) and Path(start).exists():
            self._subcommand_parsers[subcommand].set_defaults(defaults_to_start(Path(start)))
        self.config = parser.parse_args(replacing_data(args))
        seed = self.config[subcommand].seed_everything
        if not isinstance(seed, bool) and seed is not None:
            require_whole("seed_everything", seed, least=0, most=2**32 - 1)  # what all generators take
        if self.config[subcommand].get("data") is None:
            raise ValueError(
                f"{subcommand} needs data: give --data FILE or a --config with a section data"
                + (f"; the checkpoint {path} does not remember any." if path else ".")
            )
        if path and stored is not None:
            announce(stored, path, self.config[subcommand].data.as_dict())

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning's own version lets the checkpoint override what was typed.

        It is called whatever ``load_from_checkpoint_support`` says; nothing public turns it off. Lightning's pull
        request 21455 lets what was typed win; this can go once that is released.
        """

    def before_instantiate_classes(self) -> None:
        """Refuse what would do nothing.

        Raises:
            ValueError: If nothing would be trained, or there is nothing to start from.
        """
        trainer = self.config[self.config.subcommand].trainer
        if self.config.subcommand == "fit" and 0 in (trainer.max_steps, trainer.max_epochs):
            raise ValueError("fit with trainer.max_steps or trainer.max_epochs 0 would train nothing; give at least 1.")
        config = self.config[self.config.subcommand]
        start = config.model.get("init_from")
        if start and not Path(start).exists() and not config.get("ckpt_path") and not self._resumes():
            raise ValueError(f"model.init_from is {start!r}, but there is no such folder or checkpoint.")
        if self._resumes():
            fix_version(trainer)

    def instantiate_classes(self) -> None:
        """Build everything; where a checkpoint brings the weights, nothing is read at ``model.init_from``."""
        config = self.config[self.config.subcommand]
        start, path = config.model.get("init_from"), config.get("ckpt_path")
        goes_on = isinstance(path, str) and Path(path).is_file()
        if goes_on:
            config.model.init_from = None
        super().instantiate_classes()
        if goes_on:
            config.model.init_from = start  # for the run's record

    def instantiate_trainer(self, **kwargs: Any) -> GAUAlphaTrainer:
        """Build the trainer, with checkpoints that are written atomically.

        Args:
            **kwargs: Arguments that win over the config's.

        Raises:
            ValueError: If the config makes no sense.
        """
        config = {**self.config_init[self.config.subcommand].trainer, **kwargs}
        plugins = config.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, WholeCheckpointIO()]
        check_trainer(config)
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError, LookupError, ArithmeticError, ImportError) as error:
            # Lightning looks up what it is given before it says what is wrong with it, if it does.
            raise ValueError(f"The trainer can't be built as section trainer says: {error}") from error
        assert isinstance(trainer, GAUAlphaTrainer)
        return trainer

    def after_instantiate_classes(self) -> None:
        """Claim the run's folder, choose what is resumed from, install what every run has, say what is in effect."""
        config = self.config_init[self.config.subcommand]
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it
        if self.config.subcommand == "fit":
            check_callbacks(callbacks, self.trainer.strategy)
        if self.config.subcommand == "fit" and isinstance(config.ckpt_path, str) and Path(config.ckpt_path).is_dir():
            # explains why it is refused; strategies of Lightning would unpickle it
            read_training_state(config.ckpt_path)
        recorded = any(isinstance(one, RunRecord) for one in callbacks)  # fast_dev_run is not
        if self.config.subcommand == "fit" and recorded and (self.trainer.loggers or self.trainer.checkpoint_callbacks):
            start = start_run(self.trainer, config.ckpt_path, self._resumes(), config.overwrite)
            config.ckpt_path = start.ckpt_path
            self.config.fit.overwrite = False  # done: the run's record is no command to remove it
            identity = RunIdentity(start, self.trainer)
            self._held.callback(identity.release)
            callbacks.append(identity)
        self._check_data(config)
        path = config.ckpt_path if self.config.subcommand == "fit" else None
        if self.config.subcommand == "predict":  # whose batches may differ in size as its texts do
            callbacks[:] = [PredictionProgress() if isinstance(one, ProgressBar) else one for one in callbacks]
        callbacks[:] = installed_callbacks(callbacks, path)
        if not self.trainer.is_global_zero:
            return
        print(printable(f"method: {self.model.model.method.summary()}"))
        if self.config.subcommand == "fit":
            print(printable(f"optimizer: {self.model.optimizer.summary(self.model.model)}"))
        if path and Path(path).is_file():
            for line in self._changes_since(path):
                print(printable(f"changed since {path} was saved: {line}"))
            epoch = ended_inside_epoch(read_checkpoint(path))
            if epoch is not None:
                left = f"training goes on with epoch {epoch + 1}, and what was left of epoch {epoch} is not read"
                print(printable(f"{path} was saved at the end of a run that ended inside epoch {epoch}: {left}"))

    def _check_data(self, config: Any) -> None:
        """Hold the data against every checkpoint that the command names."""
        command = self.config.subcommand
        paths = config.ckpt_path if isinstance(config.ckpt_path, list) else [config.ckpt_path]
        folders = command in EVALUATIONS
        read = {
            path: with_splits(read_evaluated(path), Path(path))
            for path in paths
            if isinstance(path, str) and (Path(path).is_file() or (folders and is_folder(path)))
        }
        assert isinstance(self.trainer, GAUAlphaTrainer)
        if command == "extrapolate" and len(read) > 1:
            found = check_each(read, self.datamodule, config.allow_mismatch)
        else:
            found = {
                path: check_belongs(one, path, self.datamodule, command, config.allow_mismatch)
                for path, one in read.items()
            }
            for one in found.values():
                self.datamodule = one.data
        start = self.config[command].model.get("init_from")
        if command == "fit" and start and not config.ckpt_path and Path(start).exists():
            self.datamodule = after_parent(start, self.datamodule)
        self.trainer.evaluations = {
            str(Path(path)): CheckpointData(one.data, one.tokenizer, "; ".join(one.notes))
            for path, one in found.items()
        }

    def _changes_since(self, path: str) -> list[str]:
        """List the settings that differ from those of the run that saved a checkpoint."""
        before = run_of(read_checkpoint(path), path).get("config")
        if not isinstance(before, dict):
            return []
        now = yaml.safe_load(self._parser(self.subcommand).dump(self.config.fit, skip_unset=False))
        model = before.get("model")
        if isinstance(model, dict) and model.get("method") is None:
            # None was asked for, which is what a config then says; which one that was stands beside the weights.
            model["method"] = checkpoint_defaults(Path(path)).arguments["method"].build().summary()
            now["model"]["method"] = self.model.model.method.summary()
        asked = (
            "ckpt_path",
            "auto_resume",
            "allow_mismatch",
            "overwrite",
            "config",
            "trust",
        )  # how to start, and nothing of the run itself
        before, now = ({name: value for name, value in x.items() if name not in asked} for x in (before, now))
        return changes(before, now)

    def _resumes(self) -> bool:
        """Say whether ``auto_resume`` is asked of a command that it concerns."""
        return self.config.subcommand == "fit" and self.config.fit.auto_resume


class FineTuningCLI(GAUAlphaCLI):
    """The same for a model with a head, which chooses from the data's labels."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the labels, too."""
        super().add_arguments_to_parser(parser)
        parser.link_arguments("data.labels", "model.labels", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        """Let the data use the tokenizer of what training starts from, unless another is given."""
        super().before_instantiate_classes()
        config = self.config[self.config.subcommand]
        data, start = config.data.get("init_args", {}), config.model.get("init_from")
        if start and Path(start).exists() and "tokenizer" in data and data.tokenizer is None:
            folder = Path(start)
            if folder.is_dir():
                named = tokenizer_class_in(folder)
            else:
                tokenizer = checkpoint_defaults(folder).tokenizer
                named = None if tokenizer is None else tokenizer.as_dict()
                if tokenizer is not None:
                    announce(tokenizer, start)
            data.tokenizer = None if named is None else dict_to_namespace(named)
