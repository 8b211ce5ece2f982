"""What a run was set to, in the words of a logger: names that a table can hold, and TensorBoard's page of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, get_args, get_type_hints, runtime_checkable

from lightning.fabric.loggers import Logger
from lightning.pytorch import Trainer

from gau_alpha.attention.presets import AXIS_TYPES
from gau_alpha.attention.strategy import Strategy, init_parameters

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

Value = str | bool | int | float
"""What TensorBoard's table of runs can hold."""

FIRST = ("similarity", "scaling", "position", "visibility", "train_length")
"""TensorBoard's page shows five columns until more are ticked: these."""


@runtime_checkable
class HasSummaryMetrics(Protocol):
    """A callback that logs numbers by which runs are compared."""

    def summary_metrics(self) -> list[str]:
        """Name these scalars, the most telling first."""
        ...


def summary_metrics(trainer: Trainer, validation_metrics: Mapping[str, Any]) -> list[str]:
    """Name the scalars by which runs are compared: those of callbacks, then what validation logs, if there is any.

    Args:
        trainer: The trainer.
        validation_metrics: The module's, by name.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it
    names = [name for one in callbacks if isinstance(one, HasSummaryMetrics) for name in one.summary_metrics()]
    return [*names, *map(str, validation_metrics.keys())] if trainer.enable_validation else names


def flatten_hparams(stored: Mapping[str, Any]) -> dict[str, Value]:
    """Flatten the hyperparameters of a module into text and numbers.

    A class becomes its name, and its arguments entries of their own, with a dot: MLflow keeps an entry as a file, and
    one with a slash below a folder of the first part's name. ``similarity`` is ``CosScale`` and
    ``similarity.scale`` is 8.0. None is left out, and so is the ``train_length`` of a strategy: it is the run's.

    Args:
        stored: What the module saved: plain data, classes as ``{"class_path": …, "init_args": {…}}``.

    Returns:
        Values by name.
    """
    values: dict[str, Value] = {}
    for name, value in stored.items():
        if name in ("config", "method"):
            values |= flatten_hparams(value)
        elif isinstance(value, Mapping) and "class_path" in value:
            values[name] = _class_name(value)
            arguments = {key: one for key, one in value.get("init_args", {}).items() if key != "train_length"}
            values |= {f"{name}.{key}": one for key, one in flatten_hparams(arguments).items()}
        elif isinstance(value, list | tuple):
            values[name] = ", ".join(_class_name(one) if isinstance(one, Mapping) else str(one) for one in value)
        elif value is not None:
            values[name] = value if isinstance(value, Value) else str(value)
    return values


def log_hyperparameters(loggers: Iterable[Logger], stored: Mapping[str, Any], summary_metrics: Sequence[str]) -> None:
    """Hand a run's hyperparameters to its loggers; to be called on the first process.

    TensorBoard gets them without Lightning's ``hp_metric``, a chart of −1: its page shows the latest values of scalars
    that are logged anyway.

    Args:
        loggers: The trainer's.
        stored: What the module saved; see ``flatten_hparams``.
        summary_metrics: Scalars that TensorBoard shows beside the hyperparameters.
    """
    values = flatten_hparams(stored)
    for logger in loggers:
        writer: Any = getattr(getattr(logger, "experiment", None), "file_writer", None)
        if hasattr(writer, "add_summary"):  # the logger of a fast_dev_run has any attribute, as a function
            logger.hparams.update(values)  # type: ignore[attr-defined]  # which it writes to hparams.yaml
            for summary in _summaries(values, summary_metrics):
                writer.add_summary(summary)
        else:
            logger.log_hyperparams(values)


def numbers_of_strategies() -> list[str]:
    """Name every number that any strategy of any axis is built with, as ``flatten_hparams`` does.

    TensorBoard takes its columns from one run of all that it shows, and another run may have another method.
    """
    names = {
        f"{axis}.{name}"
        for axis, base in AXIS_TYPES.items()
        for cls in _subclasses(base)
        for name in init_parameters(cls)
        if name not in ("train_length", "seed") and _is_number(cls, name)
    }
    return sorted(names)


def _summaries(values: Mapping[str, Value], summary_metrics: Sequence[str]) -> "tuple[Summary, Summary]":
    """What TensorBoard's hparams plugin reads: the columns, and this run's values."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

    # Columns that "differ" come first; TensorBoard sorts the others by name. With a type each would bring a form to
    # filter by it, and the list be pages long.
    columns = [
        api_pb2.HParamInfo(name=name, differs=name in FIRST)
        for name in dict.fromkeys([*values, *numbers_of_strategies()])
    ]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in summary_metrics]
    experiment = plugin_data_pb2.HParamsPluginData(
        experiment=api_pb2.Experiment(hparam_infos=columns, metric_infos=metrics)
    )
    start = summary_v2.hparams_pb(values, trial_id="")  # without an id of its own a run goes by its folder's name
    shown = type(start)()
    shown.value.add(
        tag=metadata.EXPERIMENT_TAG, metadata=metadata.create_summary_metadata(experiment), tensor=metadata.NULL_TENSOR
    )
    return shown, start


def _class_name(description: Mapping[str, Any]) -> str:
    return description["class_path"].rpartition(".")[2]


def _subclasses(cls: type[Strategy]) -> set[type[Strategy]]:
    return {one for child in cls.__subclasses__() for one in (child, *_subclasses(child))}


def _is_number(cls: type[Strategy], name: str) -> bool:
    kind = get_type_hints(cls.__init__).get(name)
    return bool({int, float} & {kind, *get_args(kind)})
