"""How long the command line takes to say what it can do: ``python tests/benchmarks/startup.py [--quick]``."""

import subprocess
import sys

from harness import alternately, main, ratios, table

COMMANDS = {
    "import lightning.pytorch": ["-c", "import lightning.pytorch"],
    "gau-alpha --help": ["-m", "gau_alpha.cli", "--help"],
    "gau-alpha methods": ["-m", "gau_alpha.cli", "methods"],
    "gau-alpha fit --help": ["-m", "gau_alpha.cli", "fit", "--help"],
}


def report(quick: bool) -> list[str]:
    """Start-up times beside that of Lightning's import."""
    works = {
        name: lambda arguments=arguments: subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        for name, arguments in COMMANDS.items()
    }
    times = alternately(works, 3 if quick else 7)
    base = times["import lightning.pytorch"]
    rows = [[name, str(timing), ratios(timing, base)] for name, timing in times.items()]
    return ["## Start-up", "", *table(["command", "time", "× Lightning's import"], rows)]


if __name__ == "__main__":
    main(report)
