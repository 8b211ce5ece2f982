"""``python -m gau_alpha.cli``."""

import sys

from gau_alpha.cli import main

sys.exit(main())
