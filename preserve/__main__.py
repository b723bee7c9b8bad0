"""The command ``preserve`` and ``python -m preserve``."""

import sys

from preserve.cli import main

if __name__ == "__main__":
    sys.exit(main())
