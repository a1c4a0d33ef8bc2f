"""The console script: Archsmith's own modules are found before any of the same name elsewhere.

They have plain names (`run`, `engine`), and a folder of the user's on PYTHONPATH may have such too.
"""

import sys
from pathlib import Path


def main() -> None:
    """As `python run.py`."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from run import main as start

    start()
