"""What a study is, as its YAML says: trainings over seeds, evaluations, and comparisons that are named beforehand."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from gau_alpha.untrusted.limits import require_number, require_whole
from gau_alpha.untrusted.reading import read_yaml
from gau_alpha.untrusted.registry import shown

METRICS = ("loss", "accuracy", "gain", "attention_entropy", "near_share")
"""What a comparison may be of: numbers that an evaluation has for every method and length, ``gain`` by ``copy``."""

EXPECTATIONS = ("lower", "higher", "within")
"""What a comparison may expect of the difference first − second."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")  # it names a folder
_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Training:
    """A model that is trained once per seed.

    Attributes:
        name: Of the training.
        overrides: Settings that win over the base's, in sections as in any YAML of ``fit``.
        parent: The training whose final weights of the same seed it starts from, if any.
        seeds: Its seeds; by default the study's.
    """

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    seeds: Sequence[int] = ()


@dataclass(frozen=True)
class Evaluation:
    """An ``extrapolate`` of each training and seed.

    Attributes:
        name: Of the evaluation.
        methods: Presets, ``trained``, method files, or ``calibrated`` and ``NAME_calibrated``, which are calibrated
            first.
        trainings: Which trainings it is of; all by default.
        options: Options of ``gau-alpha extrapolate``, such as ``length_ratios`` and ``max_tokens``. Of two protocols
            one is ``copy``.
        calibrate: Options of ``gau-alpha calibrate``.
        baseline: ``{training: …, method: …}``, what the others' losses are compared with; by default the first of each.
    """

    name: str
    methods: Sequence[str]
    trainings: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    calibrate: Mapping[str, Any] = field(default_factory=dict)
    baseline: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """One of the two numbers that a comparison is between, per seed.

    Attributes:
        training: The model.
        method: The method that it is evaluated under, as the evaluation's table names it.
        evaluation: Which evaluation.
        length_ratio: At which multiple of the training length.
    """

    training: str
    method: str
    evaluation: str
    length_ratio: int


@dataclass(frozen=True)
class Comparison:
    """A difference, first − second, paired by seed.

    Attributes:
        name: Of the comparison.
        first: What is compared.
        second: With what.
        metric: One of ``METRICS``.
        expect: One of ``EXPECTATIONS``; ``within``: at most ``margin`` from 0. None: no expectation.
        margin: In units of the metric, for ``within``.
        claim: The statement that is put to the test, in words.
    """

    name: str
    first: Side
    second: Side
    metric: str = "loss"
    expect: str | None = None
    margin: float | None = None
    claim: str = ""


@dataclass(frozen=True)
class Study:
    """All of it.

    Attributes:
        path: Its YAML.
        base: YAML files of ``fit`` that every training is composed of, those of this folder or shipped ones.
        seeds: Of weights and data order, for each training.
        seed_settings: The settings of ``fit`` that a seed is given to.
        trainings: By name.
        evaluations: By name.
        comparisons: In the order of the file.
        title: For the report.
    """

    path: Path
    base: Sequence[str]
    seeds: Sequence[int]
    trainings: Mapping[str, Training]
    evaluations: Mapping[str, Evaluation]
    comparisons: Sequence[Comparison] = ()
    seed_settings: Sequence[str] = ("seed_everything", "data.init_args.seed")
    title: str = ""


def read_study(path: Path) -> Study:
    """Read a study.

    Args:
        path: The YAML.

    Raises:
        ValueError: If there is no such file, or it is no study: names the entry, what it is and what it may be.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a mapping with the entries {', '.join(_names(Study, ('path',)))}.")
    try:
        return _study(path, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _study(path: Path, content: dict[str, Any]) -> Study:
    known = dict(content)
    known["base"] = _texts("base", [known["base"]] if isinstance(known.get("base"), str) else known.get("base", []))
    known["seeds"] = _seeds("seeds", known.get("seeds", []))
    trainings: dict[str, Training] = {}
    for name, entry in _section(known, "trainings").items():
        where = f"trainings.{name}"
        entry = _mapping(where, entry)
        given = {**entry, "name": _name(where, name), "seeds": entry.get("seeds", known["seeds"])}
        training = _build(Training, given, where)
        _mapping(f"{where}.overrides", training.overrides)
        _seeds(f"{where}.seeds", training.seeds)
        if training.parent is not None and training.parent not in trainings:
            raise ValueError(
                f"{where}.parent must be one of the trainings above it ({', '.join(trainings) or 'there are none'}), "
                f"got {shown(training.parent)}."
            )
        if training.parent and (missing := set(training.seeds) - set(trainings[training.parent].seeds)):
            raise ValueError(f"{where}.seeds: its parent {training.parent} is not trained with {sorted(missing)}.")
        trainings[name] = training
    evaluations: dict[str, Evaluation] = {}
    for name, entry in _section(known, "evaluations").items():
        where = f"evaluations.{name}"
        given = {"trainings": list(trainings), **_mapping(where, entry), "name": _name(where, name)}
        evaluations[name] = _evaluation(_build(Evaluation, given, where), where, trainings)
    comparisons = known.get("comparisons") or []
    if not isinstance(comparisons, list):
        raise ValueError(f"comparisons must be a list, got {shown(comparisons)}.")
    known |= {
        "path": path,
        "trainings": trainings,
        "evaluations": evaluations,
        "comparisons": [
            _comparison(entry, f"comparisons[{place}]", trainings, evaluations)
            for place, entry in enumerate(comparisons)
        ],
    }
    names = Counter(one.name for one in known["comparisons"])
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"comparisons: {twice[0]!r} is the name of more than one.")
    study = _build(Study, known, "")
    _texts("seed_settings", study.seed_settings)
    return study


def _evaluation(evaluation: Evaluation, where: str, trainings: Mapping[str, Training]) -> Evaluation:
    _texts(f"{where}.methods", evaluation.methods)
    for name in _texts(f"{where}.trainings", evaluation.trainings):
        _require_one_of(f"{where}.trainings", name, trainings)
    for section in ("options", "calibrate", "baseline"):
        _mapping(f"{where}.{section}", getattr(evaluation, section))
    protocols = evaluation.options.get("protocol", "mlm")
    others = [one for one in ([protocols] if isinstance(protocols, str) else protocols) if one != "copy"]
    if len(others) > 1:
        raise ValueError(
            f"{where}.options.protocol has {' and '.join(map(str, others))}, whose losses can't be told apart here: "
            "name an evaluation for each."
        )
    baseline = {"training": evaluation.trainings[0], "method": evaluation.methods[0], **evaluation.baseline}
    _require_one_of(f"{where}.baseline.training", baseline["training"], evaluation.trainings)
    if unknown := set(baseline) - {"training", "method"}:
        raise ValueError(f"{where}.baseline has {shown(sorted(map(str, unknown))[0])}; it takes training and method.")
    return _replace(evaluation, baseline=baseline)


def _comparison(
    entry: Any, where: str, trainings: Mapping[str, Training], evaluations: Mapping[str, Evaluation]
) -> Comparison:
    entry = dict(_mapping(where, entry))
    # what both sides have in common stands beside them
    common = {name: entry.pop(name) for name in _names(Side) if name in entry}
    if len(evaluations) == 1:
        common.setdefault("evaluation", next(iter(evaluations)))
    for name in ("first", "second"):
        side = _build(Side, {**common, **_mapping(f"{where}.{name}", entry.get(name))}, f"{where}.{name}")
        _require_one_of(f"{where}.{name}.evaluation", side.evaluation, evaluations)
        _require_one_of(f"{where}.{name}.training", side.training, evaluations[side.evaluation].trainings)
        require_whole(f"{where}.{name}.length_ratio", side.length_ratio)
        entry[name] = side
    comparison = _build(Comparison, entry, where)
    if not isinstance(comparison.name, str) or not comparison.name:
        raise ValueError(f"{where}.name must be a text, got {shown(comparison.name)}.")
    _require_one_of(f"{where}.metric", comparison.metric, METRICS)
    if comparison.expect is not None:
        _require_one_of(f"{where}.expect", comparison.expect, EXPECTATIONS)
    if (comparison.expect == "within") != (comparison.margin is not None):
        raise ValueError(f"{where}: expect: within and a margin belong together, give both or neither.")
    if comparison.margin is not None:
        require_number(f"{where}.margin", comparison.margin, above=0)
    return comparison


def _build(kind: type[_Kind], content: Mapping[str, Any], where: str) -> _Kind:
    """Make a dataclass of a mapping; name what it does not know, and what is missing."""
    known: Any = kind
    names = [one.name for one in fields(known)]
    if unknown := [name for name in content if name not in names]:
        shared = ("name", "path")
        raise ValueError(
            f"{where + ' has' if where else 'there is'} an unknown entry {shown(unknown[0])}; known are: "
            f"{', '.join(name for name in names if name not in shared or kind is Comparison)}."
        )
    needed = [one.name for one in fields(known) if one.default is MISSING and one.default_factory is MISSING]
    if missing := [name for name in needed if name not in content]:
        raise ValueError(f"{where + ' lacks' if where else 'it lacks'} the entry {missing[0]}.")
    return kind(**content)


def _replace(one: Evaluation, **changed: Any) -> Evaluation:
    return Evaluation(**{**{each.name: getattr(one, each.name) for each in fields(one)}, **changed})


def _names(kind: Any, hidden: Sequence[str] = ()) -> list[str]:
    return [one.name for one in fields(kind) if one.name not in hidden]


def _section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name)
    if not isinstance(section, dict) or not section:
        raise ValueError(f"{name} must be a mapping of names with at least one entry, got {shown(section)}.")
    return section


def _mapping(where: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{where} must be a mapping, got {shown(value)}.")
    return value


def _name(where: str, name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{where}: a name may have letters, digits and _ . -, and begins with a letter or digit; got {shown(name)}."
        )
    return name


def _texts(where: str, value: Any) -> Sequence[str]:
    good = isinstance(value, Sequence) and not isinstance(value, str) and value
    if not good or not all(isinstance(one, str) and one for one in value):
        raise ValueError(f"{where} must be a list of one or more names, got {shown(value)}.")
    if len(set(value)) < len(value):
        raise ValueError(f"{where} has a name twice: {shown(value)}.")
    return list(value)


def _seeds(where: str, value: Any) -> Sequence[int]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError(f"{where} must be a list of one or more whole numbers, got {shown(value)}.")
    for seed in value:
        require_whole(f"Each of {where}", seed, least=0, most=2**32 - 1)
    if len(set(value)) < len(value):
        raise ValueError(f"{where} has a seed twice: {shown(value)}.")
    return list(value)


def _require_one_of(where: str, value: Any, known: Any) -> None:
    if value not in list(known):
        raise ValueError(f"{where} must be one of {', '.join(known)}; got {shown(value)}.")
