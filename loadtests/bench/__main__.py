"""The command: `python -m loadtests.bench`, `make bench`."""

from __future__ import annotations

import sys

from loadtests.bench.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
