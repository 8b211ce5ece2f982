"""What ruff's rules do not see: every argument is explained, every error of a constructor named, every shape given.

ruff sees that each public name has a docstring, that `Args:` leaves nothing out, and that functions name what they
raise. An override may leave to the method that it overrides what is the same.
"""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap

import pytest
from docstring_parser import parse

from gau_alpha.attention.presets import AXIS_TYPES
from gau_alpha.normalizer import Softmax
from gau_alpha.position import NoPosition, Rotary
from gau_alpha.scaling import CalibratedScale, NoScaling, Product, RandomKeysScale
from gau_alpha.similarity import DotProduct
from gau_alpha.visibility import Full, Window

PACKAGES = ("gau_alpha", "datamodules", "callbacks")
# (), (…), (tokens,), (B|1, L, D/2), or that of something else
SHAPE = re.compile(r"\(\)|\(…\)|\((?:[\w·|/+− Σ]{1,20}|…|\.\.\.),(?: (?:[\w·|/+− Σ]{1,20}|…),?)*\)|same shape")
ARGUMENTS = re.compile(r"^\s*Args:\n(.+\n?)*", re.M)
HOOKS = (
    "on_",
    "setup",
    "run_if_already_trained",
    "test_step",
    "validation_step",
    "training_step",
)  # Lightning says what it hands to them


def modules():
    for package in PACKAGES:
        root = importlib.import_module(package)
        yield root
        for found in pkgutil.walk_packages(root.__path__, f"{package}."):
            if not found.name.rpartition(".")[2].startswith("_"):
                yield importlib.import_module(found.name)


def classes():
    for module in modules():
        for name, cls in vars(module).items():
            if inspect.isclass(cls) and cls.__module__ == module.__name__ and not name.startswith("_"):
                yield cls


def functions():
    """Public functions, and methods with the class they belong to."""
    for module in modules():
        for name, function in vars(module).items():
            if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
                yield None, function
    for cls in classes():
        for name, member in vars(cls).items():
            function = getattr(member, "__func__", member)
            if inspect.isfunction(function) and not name.startswith("_"):
                yield cls, function


CLASSES, FUNCTIONS = list(classes()), list(functions())


def told(cls, function) -> list[str]:
    """A function's docstring, its class's, and those of the methods that it overrides."""
    owners = [] if cls is None else [cls, *(vars(base).get(function.__name__) for base in cls.__mro__[1:])]
    return [doc for doc in (one.__doc__ for one in (function, *owners) if one is not None) if doc]


def parameters(function) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def identity(function) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def test_there_is_something_to_look_at():
    assert len(CLASSES) > 150
    assert len(FUNCTIONS) > 500


def has_constructor(cls) -> bool:
    return "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False)


@pytest.mark.parametrize("cls", filter(has_constructor, CLASSES), ids=lambda cls: cls.__qualname__)
def test_constructors_explain_arguments_and_errors(cls):
    if hasattr(cls, "__dataclass_fields__"):  # a subclass need not repeat its base's
        known = {one.arg_name for base in cls.__mro__ for one in parse(base.__doc__ or "").params}
        bases = [base for base in cls.__mro__ if base.__module__.partition(".")[0] != "transformers"]
        ours = {name for base in bases for name in vars(base).get("__annotations__", {})}
        assert known >= {one.name for one in dataclasses.fields(cls)} & ours
        return
    doc = parse(cls.__doc__)
    explained = {one.arg_name.lstrip("*") for one in doc.params}
    assert set(parameters(cls.__init__)) <= explained
    raised = raised_in(cls.__init__)
    if re.search(r"\brequire_(positive|at_least)\(", inspect.getsource(cls.__init__)):
        raised.add("ValueError")
    assert raised <= {one.type_name for one in doc.raises}


def raised_in(function) -> set[str]:
    """Names of the errors that a function raises itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    errors = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    return {ast.unparse(error.func) for error in errors if isinstance(error, ast.Call)}


def test_every_error_is_named():
    silent = []
    for cls, function in FUNCTIONS:
        named = {one.type_name for doc in told(cls, function) for one in parse(doc).raises}
        # what is no user's doing: a bug, and what a base class leaves open
        missing = raised_in(function) - named - {"AssertionError", "NotImplementedError"}
        silent += [f"{identity(function)}: {name}" for name in missing]
    assert not silent, "\n".join(silent)


def test_every_argument_is_explained():
    silent = []
    for cls, function in FUNCTIONS:
        if cls is not None and function.__name__.startswith(HOOKS):
            continue
        doc = "\n".join(told(cls, function))
        # `start: …` in Args, ``start`` in a sentence, or a single argument that the first line is about
        names = parameters(function)
        silent += [
            f"{identity(function)}: {name}"
            for name in names
            if len(names) > 1 and not re.search(rf"^\s*\**{name}:|``[^`]*\b{name}\b", doc, re.M)
        ]
    assert not silent, "\n".join(silent)


def holds_tensors(annotation) -> bool:
    """Whether it is a tensor, an array, or several by position; what comes by name is explained by name."""
    return bool(re.search(r"\bTensor\b|ndarray|NDArray", re.sub(r"(dict|Mapping|Callable)\[.*", "", str(annotation))))


def test_every_tensor_has_a_shape():
    silent, seen = [], 0
    for cls, function in FUNCTIONS:
        if cls is not None and function.__name__.startswith(HOOKS):
            continue
        docs = told(cls, function)
        signature = inspect.signature(function)
        methods = [doc for doc in docs if cls is None or doc != cls.__doc__]
        explained = {one.arg_name: one.description for doc in reversed(methods) for one in parse(doc).params}
        # what is said outside of Args: the first lines, and Returns
        rest = ARGUMENTS.sub("", "\n\n".join(methods))
        for name, parameter in signature.parameters.items():
            if holds_tensors(parameter.annotation):
                seen += 1
                if not SHAPE.search(explained.get(name, rest)):
                    silent.append(f"{identity(function)}: {name}")
        if holds_tensors(signature.return_annotation):
            seen += 1
            if not SHAPE.search(rest):
                silent.append(f"{identity(function)}: what is returned")
    assert seen > 300
    assert not silent, "\n".join(silent)


@pytest.mark.parametrize("axis", AXIS_TYPES)
def test_every_published_strategy_names_its_source(axis):
    own = {DotProduct, NoScaling, Softmax, Product, CalibratedScale, RandomKeysScale, Full, Window, Rotary}
    module = importlib.import_module(f"gau_alpha.{axis}")
    base = AXIS_TYPES[axis]
    found = [one for one in vars(module).values() if inspect.isclass(one) and issubclass(one, base) and one is not base]
    assert found
    for strategy in found:
        if strategy not in own:
            assert re.search(r"arXiv \d{4}\.\d{5}|20\d\d", strategy.paper), strategy
            assert re.search(r"arXiv|20\d\d|eq\.|sec\.", strategy.__doc__), strategy
    assert NoPosition.paper
