"""``python -m nerfkit`` is ``nerfkit``."""

import sys

from nerfkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
