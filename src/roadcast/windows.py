"""Event-time windows. A tick is one window over the whole network, named by its end.

A reading is stamped with the end of its interval, so the window that ends at E holds the times in
(E - interval, E].
"""

import numpy as np
from numpy.typing import NDArray


def tick_end(at_ms: NDArray[np.int64], interval_ms: int) -> NDArray[np.int64]:
    """The end of the window that each time falls in."""
    return -(-at_ms // interval_ms) * interval_ms
