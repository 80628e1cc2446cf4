"""``python -m mfld`` is ``mfld``."""

import sys

from mfld.cli import main

sys.exit(main())
