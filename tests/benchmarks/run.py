"""All benchmarks, into one file: ``make bench``, or ``python tests/benchmarks/run.py [--quick] [--output FILE]``."""

import argparse
import datetime
import re
import subprocess
import sys
import time
from pathlib import Path

from harness import machine

PARTS = [
    "training", "long_pass", "memory", "windows", "narrow_passes", "published_protocol", "overhead", "startup",
    "compiled",
]  # fmt: skip
FOLDER = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"some of {', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer runs")
    parser.add_argument("--output", type=Path, help="default: results/<machine>.md beside this file")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    lines = ["# Benchmarks", "", f"{machine()}; {datetime.date.today().isoformat()}", ""]
    if args.quick:
        lines += ["Quick: smaller sizes and fewer runs than what is compared in README.md.", ""]
    lines += [
        "Times are medians, with the range in brackets; what is compared took turns in one process.",
        "",
    ]
    slug = re.sub(r"[^a-z0-9]+", "-", machine().split(";")[0].lower()).strip("-")
    output = args.output or FOLDER / "results" / f"{slug}{'-quick' if args.quick else ''}.md"
    output.parent.mkdir(exist_ok=True)
    failed = []
    for part in args.parts:
        print(f"{part} …", flush=True)
        start = time.monotonic()
        command = [sys.executable, FOLDER / f"{part}.py", *(["--quick"] if args.quick else [])]
        # A process each: a part's memory and threads are no other's. Each prints the machine first.
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            failed.append(part)
            lines += [f"`{part}.py` could not run here (exit status {done.returncode}).", ""]
        else:
            lines += [done.stdout[done.stdout.index("## ") :].rstrip(), ""]
        output.write_text("\n".join(lines), encoding="utf-8")
        print(f"{part}: {time.monotonic() - start:.0f} s", flush=True)
    print(output)
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
