"""Does the tasks of a study, each by commands of its own, and says how far it is."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from statistics import mean
from types import FrameType

import yaml

from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.cli.study.definition import Study
from gau_alpha.cli.study.lock import TaskLock
from gau_alpha.cli.study.tasks import LOG, Task, located_overrides, overrides_path
from gau_alpha.untrusted.escaping import one_line, printable

_LOCK = "task.lock"
_LAST = 2000  # bytes of a log that hold its last lines


class Runner:
    """Does tasks, whatever was done of them before and whoever else does some.

    Args:
        study: The study.
        tasks: All of its tasks.
        folder: Of its results.
    """

    def __init__(self, study: Study, tasks: Sequence[Task], folder: Path) -> None:
        self.tasks = tasks
        for training in study.trainings.values():
            text = yaml.safe_dump(located_overrides(training, study), allow_unicode=True, sort_keys=False)
            path = overrides_path(folder, training.name)
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_atomic(path, lambda unfinished, text=text: unfinished.write_text(text, encoding="utf-8"))  # type: ignore[misc]

    def do_all(self) -> list[str]:
        """Do what is left, first what no other process is doing.

        Returns:
            What failed, a line each. What depends on it was not tried.
        """
        failed: dict[int, str] = {}
        for wait in (False, True):
            for task in self.tasks:
                if task.is_done or task.number in failed:
                    continue
                if any(parent.number in failed for parent in _parents(task)):
                    failed[task.number] = f"{task}: not tried, since what it needs has failed"
                    continue
                if message := self._do(task, wait):
                    failed[task.number] = message
        return list(failed.values())

    def do(self, task: Task) -> list[str]:
        """Do one task, and before it what it needs; wait for other processes that do them.

        Args:
            task: The task.

        Returns:
            What failed.
        """
        for one in [*reversed(list(_parents(task))), task]:
            if not one.is_done and (message := self._do(one, wait=True)):
                return [message]
        return []

    def _do(self, task: Task, wait: bool) -> str:
        """Do a task whose parents are done; return what went wrong, if anything did."""
        if any(not parent.is_done for parent in _parents(task)):
            return ""  # somebody is doing them; it is tried again when they have been waited for
        lock = TaskLock(task.folder / _LOCK)
        if not lock.acquire(wait=False):
            if not wait:
                return ""
            _say(f"{task}: waiting for another process that is doing it")
            lock.acquire(wait=True)
        try:
            if task.is_done:
                return ""
            resumed = task.is_begun
            task.begin()
            _say(f"{task}: {'resumed' if resumed else 'begun'}; what it prints is in {task.folder / LOG}")
            start = time.monotonic()
            for command in task.commands:
                if code := _run(command, task.folder / LOG, lock.descriptor):
                    return f"{task} failed with code {code}: {_last_line(task.folder / LOG)}"
            task.finish(time.monotonic() - start, resumed)
            _say(f"{task}: done in {_shown(time.monotonic() - start)}; left: {estimate(self.tasks)}")
            return ""
        finally:
            lock.release()


def estimate(tasks: Sequence[Task]) -> str:
    """Say how long what is left will take, one task after the other.

    Each is taken to last as long as the finished ones of its name, or else of its kind.

    Args:
        tasks: All tasks.
    """
    left = [task for task in tasks if not task.is_done]
    if not left:
        return "nothing"
    times = [duration(task, tasks) for task in left]
    known = [seconds for seconds in times if seconds is not None]
    count = f"{len(left)} of {len(tasks)} tasks"
    if not known:
        return f"{count}, how long they take is known once one is done"
    unknown = len(left) - len(known)
    return f"{count}, about {_shown(sum(known))}" + (f" and {unknown} of unknown length" if unknown else "")


def duration(task: Task, tasks: Sequence[Task]) -> float | None:
    """Say how long a task took, or will take as far as others tell; None if none does.

    Args:
        task: The task.
        tasks: All tasks.
    """
    if task.seconds is not None:
        return task.seconds
    for alike in (lambda one: one.name == task.name, lambda one: True):
        times = [one.seconds for one in tasks if one.kind == task.kind and one.seconds is not None and alike(one)]
        if times:
            return mean(times)
    return None


def listed(tasks: Sequence[Task]) -> Iterator[str]:
    """List tasks, a line each, and what is left.

    Args:
        tasks: All tasks.
    """
    width = max(len(task.name) for task in tasks)
    for task in tasks:
        state = "done" if task.is_done else "begun" if task.is_begun else "left"
        seconds = duration(task, tasks)
        shown = "" if seconds is None else _shown(seconds) if task.seconds is not None else f"about {_shown(seconds)}"
        what = f"{task.kind:<10}  {task.name:<{width}}  seed {task.seed:<4}"
        yield f"{task.number:>4}  {what}  {state:<5}  {shown}".rstrip()
    yield f"left: {estimate(tasks)}"


def _parents(task: Task) -> Iterator[Task]:
    """Yield what a task needs, the nearest first."""
    while task.parent is not None:
        task = task.parent
        yield task


def _run(command: Sequence[str], log: Path, lock: int) -> int:
    """Run a command of ours to its end; what would end this process lets the command end first, in its own way."""
    words = [sys.executable, "-P", "-m", "gau_alpha.cli", *command]
    with log.open("ab") as output:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[lock])

    def end(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)  # which may have been sent to this process alone
        raise SystemExit(128 + number)  # no waiting here: the interrupted wait holds Popen's lock

    before = signal.signal(signal.SIGTERM, end)
    try:
        return process.wait()
    except (KeyboardInterrupt, SystemExit):  # the command gets Ctrl-C from the terminal, too
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LAST))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return f"{one_line(lines[-1]) if lines else 'it printed nothing'} (all of it is in {log})"


def _shown(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _say(text: str) -> None:
    print(printable(text), flush=True)
