"""The test for a number in a setting."""

import math
from typing import Any


def is_number(value: Any) -> bool:
    """Whether it is a finite int or float; true and false do not count."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
