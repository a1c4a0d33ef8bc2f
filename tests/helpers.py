"""Helpers shared by the tests of several packages."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = str(ROOT / "run.py")
