"""How many bytes a tensor with zeros takes when it is stored packed."""

from __future__ import annotations

import math


def packed_bytes(size: int, nonzero: int, rows: int, itemsize: int) -> int:
    """Bytes of the cheapest of three layouts: dense; a bitmap and the non-zeros; CSR.

    `size` entries in all, `nonzero` of them kept, `rows` = the first dimension (for CSR row
    pointers of 4 bytes), `itemsize` bytes an entry. CSR column indices take 2 bytes when they fit.
    """
    dense = size * itemsize
    bitmap = math.ceil(size / 8) + nonzero * itemsize
    columns = size // rows if rows else size
    index_bytes = 2 if columns <= 65_536 else 4
    csr = (rows + 1) * 4 + nonzero * (index_bytes + itemsize)
    return min(dense, bitmap, csr)
