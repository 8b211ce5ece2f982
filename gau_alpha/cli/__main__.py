"""``python -m gau_alpha.cli``."""

import os
import sys
from pathlib import Path

# `python -m` puts the working directory first on the path, so that any file there could pass for a library. It is taken
# out, unless this package itself comes from there: classes of the user's own are found in another way.
if not sys.flags.safe_path and Path(sys.path[0]).resolve() == Path.cwd() != Path(__file__).resolve().parents[2]:
    del sys.path[0]
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # for the processes that this one starts

from gau_alpha.cli import main

sys.exit(main())
