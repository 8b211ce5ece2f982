"""``gau-alpha study``: trainings over seeds, their evaluations, and one report of all."""

import argparse
import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.cli.provenance import environment_info
from gau_alpha.cli.study.definition import Study, read_study
from gau_alpha.cli.study.lock import TaskLock
from gau_alpha.cli.study.runner import Runner, estimate, listed
from gau_alpha.cli.study.tasks import DONE, Task, evaluation_folder, tasks_of
from gau_alpha.cli.trust import gather_trust
from gau_alpha.untrusted.escaping import printable
from gau_alpha.untrusted.reading import read_json

_COMPARISONS = "comparisons.json"
_LOCK = "report.lock"


def run_study(args: list[str]) -> int:
    """Do what is left of a study, list it, or do one part of it.

    Args:
        args: Command-line arguments.

    Returns:
        The exit code: 0, or 1 if a part has failed.

    Raises:
        ValueError: If the study makes no sense, or what was done of it was done with other settings.
    """
    args, trust = gather_trust(args)
    parser = argparse.ArgumentParser(
        prog="gau-alpha study",
        description="Train what is missing of a study, evaluate it, and write one report over seeds. Killed anywhere, "
        "the same line goes on.",
    )
    parser.add_argument(
        "study", type=Path, metavar="STUDY.yaml", help="base, seeds, trainings, evaluations, comparisons"
    )
    parser.add_argument("--output_dir", type=Path, help="where everything goes; default: runs/study/STUDY")
    parser.add_argument("--list", action="store_true", help="show what is done and what is left, and do nothing")
    parser.add_argument("--task", type=int, metavar="N", help="do one part, and before it what it needs")
    parser.add_argument("--trust", metavar="CLASS", help="a class of your own that files may name; repeatable")
    chosen = parser.parse_args(args)
    study = read_study(_located(chosen.study))
    folder = (chosen.output_dir or Path("runs") / "study" / study.path.stem).absolute()
    tasks = tasks_of(study, folder, trust)
    for task in tasks:
        task.check()
    _check_comparisons(study, tasks, folder)
    if chosen.list:
        for line in listed(tasks):
            print(printable(line))
        return 0
    if chosen.task is not None and not 1 <= chosen.task <= len(tasks):
        raise ValueError(f"--task must be a number from 1 to {len(tasks)}, got {chosen.task}; --list shows the tasks.")
    _record(study, folder)
    runner = Runner(study, tasks, folder)
    failed = runner.do_all() if chosen.task is None else runner.do(tasks[chosen.task - 1])
    for line in failed:
        print(printable(line))
    if chosen.task is None or all(task.is_done for task in tasks):
        _report(study, tasks, folder)
    else:
        print(f"left: {estimate(tasks)}")
    return 1 if failed else 0


def _located(path: Path) -> Path:
    """Find a study: a file, or the name of a shipped one."""
    shipped = Path(str(files("configs").joinpath("study")))
    return next((one for one in (path, shipped / path, shipped / f"{path}.yaml") if one.is_file()), path)


def _check_comparisons(study: Study, tasks: list[Task], folder: Path) -> None:
    """Refuse comparisons, and a choice of their seeds, that finished results could have been looked at for."""
    for side in (side for one in study.comparisons for side in (one.first, one.second)):
        known = {f"seed_{seed}" for seed in study.trainings[side.training].seeds}
        place = evaluation_folder(folder, side.evaluation, side.training, 0).parent
        if dropped := sorted({done.parent.name for done in place.glob(f"seed_*/{DONE}")} - known):
            raise ValueError(
                f"{study.path}: {dropped[0]} of {side.training} is finished in {place}, but no longer among its seeds: "
                "to choose seeds after looking at results is no test. Restore it, or give another --output_dir."
            )
    path = folder / _COMPARISONS
    if not path.is_file() or not any(task.kind == "evaluation" and task.is_done for task in tasks):
        return
    if read_json(path) != _comparisons(study):
        raise ValueError(
            f"{study.path}: the comparisons are not those of {path}, and evaluations are finished: what is named after "
            "looking at results is no test. Restore them, and compare other things in results.parquet, as exploratory."
        )


def _comparisons(study: Study) -> list[dict[str, Any]]:
    return [asdict(one) for one in study.comparisons]


def _record(study: Study, folder: Path) -> None:
    """Keep the study, its comparisons and the surroundings beside the results."""
    text = study.path.read_text(encoding="utf-8")
    contents = {
        "study.yaml": text,
        _COMPARISONS: json.dumps(_comparisons(study), indent=2, ensure_ascii=False) + "\n",
        "run.json": json.dumps(environment_info(), indent=2) + "\n",
    }
    for name, content in contents.items():
        write_atomic(folder / name, lambda path, content=content: path.write_text(content, encoding="utf-8"))  # type: ignore[misc]


def _report(study: Study, tasks: list[Task], folder: Path) -> None:
    from gau_alpha.cli.study.report import write_report
    from gau_alpha.cli.study.results import Results

    lock = TaskLock(folder / _LOCK)
    lock.acquire(wait=True)
    try:
        results = Results.of_tasks(study, tasks)
        if not results.rows:
            print("no report: no evaluation is finished")
            return
        write_report(results, folder, study.title or study.path.stem)
        print(printable(f"report: {folder / 'study.html'}"))
    finally:
        lock.release()
