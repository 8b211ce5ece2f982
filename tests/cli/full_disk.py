"""Trains until a checkpoint no longer fits, makes room and goes on; prints as JSON what was seen.

Arguments: the config, the folder of the run, and what is short: ``disk``, the file system that the folder is the root
of, or ``limit``, the size that files may grow to.
"""

import contextlib
import io
import json
import resource
import shutil
import sys
from pathlib import Path

from gau_alpha.checkpoints import find_corruption
from gau_alpha.cli import main


def fit(config, steps):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = main(["fit", "--config", config, "--auto_resume", "true", "--trainer.max_steps", str(steps)])
    return code, errors.getvalue()


def files(folder):
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def shortage(kind, folder, room):
    """Room for a part of a checkpoint."""
    if kind == "limit":
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return
    filler = folder / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(folder).free - room))
    yield
    filler.unlink()


if __name__ == "__main__":
    config, folder, kind = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    said = {"disk": shutil.disk_usage(folder).total}
    assert fit(config, 2)[0] == 0
    (checkpoint,) = folder.rglob("*.ckpt")
    said["before"] = files(folder)
    content = checkpoint.read_bytes()
    with shortage(kind, folder, int(len(content) * 0.7)):
        said["code"], said["error"] = fit(config, 4)
        said["during"] = {name: size for name, size in files(folder).items() if name != "filler"}
    said["unchanged"] = checkpoint.read_bytes() == content and find_corruption(checkpoint) is None
    said["again"], _ = fit(config, 4)
    said["after"] = files(folder)
    print(json.dumps(said))
