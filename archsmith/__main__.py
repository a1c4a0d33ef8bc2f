"""The console script `archsmith`, and `python -m archsmith`: the same as `python run.py`."""

import sys
from pathlib import Path


def main() -> None:
    """Starts the command line. The packages beside this one are found before any of the same name
    elsewhere: a folder of the user's on PYTHONPATH may hold a `strategies` of its own."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from archsmith.cli.main import main as start

    start()


if __name__ == "__main__":
    main()
