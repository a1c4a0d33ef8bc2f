"""The console script `archsmith`, and `python -m archsmith`: the same as `python run.py`."""

import sys
from pathlib import Path


def main() -> None:
    """Starts the command line. Our packages come first on the import path, because a folder on the
    user's PYTHONPATH may also contain a package called `strategies`."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from archsmith.cli.main import main as start

    start()


if __name__ == "__main__":
    main()
