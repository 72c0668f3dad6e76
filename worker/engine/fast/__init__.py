"""The same function as a graph, made faster: fewer passes over memory, better kernels, less rows.

Everything here changes last bits only, and only where a graph is of the ordinary kind; whatever is
not known to be safe stays as it is.
"""

from worker.engine.fast.accelerate import Accelerated, accelerate

__all__ = ["Accelerated", "accelerate"]
