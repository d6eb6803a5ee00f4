"""Time as everything here takes it: seconds that never go back.

Nothing that decides reads a clock itself: it is handed ``now``. Runners read it here.
CLOCK_BOOTTIME, because a suspended machine must see its leases and timers as passed.
"""

import time


def now() -> float:
    """Seconds since boot, suspended time included; comparable between processes of a host."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
