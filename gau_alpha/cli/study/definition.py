"""What a study is, as its YAML says: trainings over seeds, evaluations, and comparisons that are named beforehand."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from gau_alpha.attention.presets import TRAINED, display_name
from gau_alpha.extrapolation.candidates import GROUPS
from gau_alpha.extrapolation.options import DEFAULT_RATIOS, PROBED_RATIOS
from gau_alpha.extrapolation.protocols import PROTOCOLS
from gau_alpha.untrusted.limits import require_number, require_whole
from gau_alpha.untrusted.reading import read_yaml
from gau_alpha.untrusted.registry import shown

METRICS = ("loss", "accuracy", "gain", "attention_entropy", "near_share")
"""What a comparison may be of: numbers that an evaluation has for every method and length, ``gain`` by ``copy``."""

EXPECTATIONS = ("lower", "higher", "within")
"""What a comparison may expect of the difference first − second."""

_OWN = {
    # with a time_budget, what was not measured in time would pass for done
    "options": ("ckpt_path", "methods", "calibrations", "output_dir", "time_budget"),
    "calibrate": ("ckpt_path", "method", "objective", "output"),
}
"""Options that the study itself gives."""

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
        given = {"seeds": known["seeds"], **_given(where, entry), "name": _name(where, name)}
        training = _build(Training, given, where)
        if "ckpt_path" in _mapping(f"{where}.overrides", training.overrides):
            raise ValueError(f"{where}.overrides has ckpt_path: trainings begin afresh or have a parent; leave it out.")
        _seeds(f"{where}.seeds", training.seeds)
        if training.parent is not None and training.parent not in list(trainings):
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
        given = {"trainings": list(trainings), **_given(where, entry), "name": _name(where, name)}
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
    study = _build(Study, _given("", known), "")
    _texts("seed_settings", study.seed_settings)
    _text("title", study.title)
    return study


def _evaluation(evaluation: Evaluation, where: str, trainings: Mapping[str, Training]) -> Evaluation:
    shown_as = [display_name(name) for name in _texts(f"{where}.methods", evaluation.methods)]
    if twice := [name for name, count in Counter(shown_as).items() if count > 1]:
        raise ValueError(f"{where}.methods has two that tables would call {twice[0]}: give one file another name.")
    for name in _texts(f"{where}.trainings", evaluation.trainings):
        _require_one_of(f"{where}.trainings", name, trainings)
    for section in ("options", "calibrate", "baseline"):
        given = _mapping(f"{where}.{section}", getattr(evaluation, section))
        if own := [name for name in _OWN.get(section, ()) if name in given]:
            raise ValueError(f"{where}.{section} has {own[0]}, which a study decides itself; leave it out.")
    others = [one for one in _protocols(evaluation, where) if one != "copy"]
    if len(others) > 1:
        raise ValueError(
            f"{where}.options.protocol has {' and '.join(others)}, whose losses can't be told apart here: "
            "name an evaluation for each."
        )
    first = TRAINED if shown_as[0] in GROUPS else shown_as[0]
    baseline = {"training": evaluation.trainings[0], "method": first, **evaluation.baseline}
    if unknown := set(baseline) - {"training", "method"}:
        raise ValueError(f"{where}.baseline has {shown(sorted(map(str, unknown))[0])}; it takes training and method.")
    _require_one_of(f"{where}.baseline.training", baseline["training"], evaluation.trainings)
    _require_method(f"{where}.baseline.method", baseline["method"], evaluation)
    return _replace(evaluation, baseline=baseline)


def _protocols(evaluation: Evaluation, where: str = "") -> list[str]:
    given = evaluation.options.get("protocol", "mlm")
    names = _texts(f"{where}.options.protocol", [given] if isinstance(given, str) else given)
    for name in names:
        _require_one_of(f"{where}.options.protocol", name, PROTOCOLS)
    return list(names)


def _require_method(where: str, method: Any, evaluation: Evaluation) -> None:
    """Refuse a method that the evaluation's tables will not have, as far as that can be known."""
    if not set(GROUPS) & set(evaluation.methods):
        _require_one_of(where, method, map(display_name, evaluation.methods))


def _require_measured(where: str, side: Side, metric: str, evaluation: Evaluation) -> None:
    """Refuse what the evaluation will not measure: it would be noticed when nothing may be changed any more."""
    _require_method(f"{where}.method", side.method, evaluation)
    protocols, options = _protocols(evaluation), evaluation.options
    # attention is looked at for either, and its entropy is there then
    switches = {"attention_entropy": ("entropy", "distances"), "near_share": ("distances",)}.get(metric, ())
    is_off = bool(switches) and all(options.get(one) is False for one in switches)
    if is_off or not any((one == "copy") == (metric == "gain") for one in protocols):
        why = " and ".join(f"{one} false" for one in switches) if is_off else f"protocol {' and '.join(protocols)}"
        raise ValueError(f"{where}: the evaluation {side.evaluation} measures no {metric}, by its options: {why}.")
    probes = metric == "gain" or protocols == ["recall"]
    ratios = options.get("length_ratios") or (PROBED_RATIOS if probes else DEFAULT_RATIOS)
    if isinstance(ratios, Sequence) and not isinstance(ratios, str) and side.length_ratio not in ratios:
        raise ValueError(
            f"{where}.length_ratio must be one of those of {side.evaluation} ({', '.join(map(str, ratios))}), got "
            f"{side.length_ratio}."
        )


def _comparison(
    entry: Any, where: str, trainings: Mapping[str, Training], evaluations: Mapping[str, Evaluation]
) -> Comparison:
    entry = _given(where, entry)
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
    if not _text(f"{where}.name", comparison.name):
        raise ValueError(f"{where}.name is empty.")
    _require_one_of(f"{where}.metric", comparison.metric, METRICS)
    if comparison.expect is not None:
        _require_one_of(f"{where}.expect", comparison.expect, EXPECTATIONS)
    if (comparison.expect == "within") != (comparison.margin is not None):
        raise ValueError(f"{where}: expect: within and a margin belong together, give both or neither.")
    if comparison.margin is not None:
        require_number(f"{where}.margin", comparison.margin, above=0)
    _text(f"{where}.claim", comparison.claim)
    sides = {"first": comparison.first, "second": comparison.second}
    for name, side in sides.items():
        _require_measured(f"{where}.{name}", side, comparison.metric, evaluations[side.evaluation])
    if comparison.first == comparison.second:
        raise ValueError(f"{where}: first and second are the same, so that nothing is compared.")
    if not set.intersection(*(set(trainings[side.training].seeds) for side in sides.values())):
        raise ValueError(f"{where}: the trainings of first and second share no seed, and differences are by seed.")
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


def _given(where: str, value: Any) -> dict[str, Any]:
    """Return a mapping without the entries that were left empty."""
    return {name: one for name, one in _mapping(where, value).items() if one is not None}


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} must be a text, got {shown(value)}: put it in quotes.")
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
    if value not in (names := list(known)):
        raise ValueError(f"{where} must be one of {', '.join(names)}; got {shown(value)}.")
