"""`python launch.py ...` is `maquette launch ...`, also from a checkout that is not installed."""

import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "src"
if SOURCES.is_dir():
    sys.path.insert(0, str(SOURCES))

if __name__ == "__main__":
    from maquette.apps.main import main

    sys.exit(main(["launch", *sys.argv[1:]]))
