"""``python -m mfld`` is ``mfld``."""

import sys

from mfld.cli import main

if __name__ == "__main__":
    sys.exit(main())
