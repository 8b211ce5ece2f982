"""Tests that start a process or a fit are told from the others by what they mention."""

import subprocess
from types import SimpleNamespace

import pytest
import torch.multiprocessing as processes
from slow_tests import is_slow

from gau_alpha.cli import main


def by_itself():
    subprocess.run(["true"], check=True)


def inside():
    def later():
        return processes.get_context("spawn")

    return later


def through_a_helper():
    by_itself()


class Helper:
    def start(self):
        through_a_helper()


def through_a_class():
    Helper().start()


def imported_late():
    import multiprocessing

    return multiprocessing


def of_a_trainer(trainer, module):
    trainer.fit(module)


def of_the_command(tmp_path):
    args = ["fit", "--config", str(tmp_path)]
    return main(args)


def of_the_command_by_words():
    return main(["fit", "--config", "demo.yaml"])


def with_workers(make):
    return make(num_workers=2)


def parsed_only(tmp_path):
    return main(["fit", "--config", str(tmp_path), "--print_config"])


def of_another_command():
    return main(["methods"])


def item(function, fixtures=(), **parameters):
    found = {one.__name__: [SimpleNamespace(func=one)] for one in fixtures}
    return SimpleNamespace(
        function=function,
        callspec=SimpleNamespace(params=parameters),
        _fixtureinfo=SimpleNamespace(name2fixturedefs=found),
    )


SLOW = [
    *(by_itself, inside, through_a_helper, through_a_class, imported_late),
    *(of_a_trainer, of_the_command, of_the_command_by_words, with_workers),
]
QUICK = [parsed_only, of_another_command]


@pytest.mark.parametrize("function", [*SLOW, *QUICK], ids=lambda function: function.__name__)
def test_what_is_mentioned_tells(function):
    assert is_slow(item(function)) == (function in SLOW)
    assert is_slow(item(of_another_command, [function])) == (function in SLOW), "a fixture"
    assert is_slow(item(of_another_command, value=function)) == (function in SLOW), "a parameter"


def test_a_number_of_workers_tells():
    assert is_slow(item(of_another_command, workers=2))
    assert not is_slow(item(with_workers, workers=0))


def test_a_test_that_mentions_a_process_is_marked(request):
    assert subprocess.run
    assert request.node.get_closest_marker("slow")


def test_a_test_that_mentions_none_is_not(request):
    assert not request.node.get_closest_marker("slow")
