"""The command: `python -m loadtests.reference`."""

from __future__ import annotations

import sys

from loadtests.reference.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
