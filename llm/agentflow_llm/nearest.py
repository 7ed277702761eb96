"""Vectors side by side, and which of them lie closest to another: exact, with numpy where it is installed."""

from __future__ import annotations

import math
import sys
from array import array
from functools import cache
from heapq import nsmallest
from itertools import islice
from operator import mul
from typing import TYPE_CHECKING, Any, Protocol

from agentflow.errors import shown

from .documents import DocumentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_TINY = 1e-100
"""Shorter vectors are left to `hypot`, which does not lose them."""
_BATCH = 1_000
"""Vectors that are copied at once."""


def unit(vector: Sequence[float], whose: str) -> array[float]:
    """The vector with length 1; one of zeros stays. Raises `DocumentError` where a number is none, or infinite."""
    try:
        length = math.hypot(*vector)
    except (TypeError, ValueError, OverflowError):
        raise DocumentError(f"the vector of {whose} is {shown(vector)}: it is a list of numbers.") from None
    if not len(vector):
        raise DocumentError(f"the vector of {whose} has no numbers. Give None where there is no vector.")
    if not math.isfinite(length):
        raise DocumentError(f"the vector of {whose} has NaN or infinity in it: look at what made it.")
    return array("f", [number / length for number in vector] if length else vector)


def units(vectors: Sequence[tuple[str, Sequence[float]]]) -> list[bytes]:
    """Vectors, each behind whose it is, with length 1 and as they are kept in a file. Raises as `unit`."""
    numpy = _numpy() if vectors else None
    if numpy is not None and len(lengths := {len(vector) for _, vector in vectors}) == 1 and 0 not in lengths:
        try:
            matrix = numpy.array([vector for _, vector in vectors], numpy.float64)
        except (TypeError, ValueError, OverflowError):
            matrix = numpy.empty(0)
        if matrix.ndim == 2:  # noqa: PLR2004 because else something in it is no number
            norms = numpy.sqrt(numpy.einsum("ij,ij->i", matrix, matrix))
            if numpy.isfinite(norms).all() and norms.min() > _TINY:
                return [row.tobytes() for row in (matrix / norms[:, None]).astype("<f4")]
    return [_little(unit(vector, whose)).tobytes() for whose, vector in vectors]


def _little(vector: array[float]) -> array[float]:
    """The numbers in the order of bytes that files have, or back."""
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return vector


class Vectors(Protocol):
    """Vectors of length 1 by their ids, which ascend. Nothing in it ever changes, so threads may share it."""

    @property
    def newest(self) -> int:
        """The greatest id; 0 where there is none."""
        ...

    def grown(self, keep: Collection[int] | None, many: int, rows: Iterable[tuple[int, bytes]]) -> Vectors:
        """Those of `keep`, or all, and behind them so many others, whose ids are greater."""
        ...

    def nearest(self, vector: array[float], most: int, among: Collection[int] | None) -> list[tuple[int, float]]:
        """Ids and cosines of the closest, the closest first, equal ones by their ids; of `among`, or of all."""
        ...


def no_vectors(dimensions: int) -> Vectors:
    """None yet, of so many numbers each."""
    numpy = _numpy()
    if numpy is None:
        return _Plain(dimensions, [], [])
    return _Matrix(numpy.empty(0, numpy.int64), numpy.empty((0, dimensions), numpy.float32))


@cache
def _numpy() -> Any:
    try:
        import numpy as np  # noqa: PLC0415 because it is heavy, and an extra
    except ImportError:
        return None
    return np


class _Matrix:
    def __init__(self, ids: Any, matrix: Any) -> None:
        self._ids = ids
        self._matrix = matrix

    @property
    def newest(self) -> int:
        return int(self._ids[-1]) if len(self._ids) else 0

    def grown(self, keep: Collection[int] | None, many: int, rows: Iterable[tuple[int, bytes]]) -> _Matrix:
        np = _numpy()
        ids, matrix = self._ids, self._matrix
        if keep is not None:
            kept = np.isin(ids, np.fromiter(keep, np.int64, len(keep)), assume_unique=True)
            ids, matrix = ids[kept], matrix[kept]
        if not many:
            return _Matrix(ids, matrix)
        end = len(ids)
        all_ids = np.resize(ids, end + many)
        everything = np.empty((end + many, matrix.shape[1]), np.float32)
        everything[:end] = matrix
        rest = iter(rows)
        while batch := list(islice(rest, _BATCH)):
            begin, end = end, end + len(batch)
            all_ids[begin:end] = [ident for ident, _ in batch]
            everything[begin:end] = np.frombuffer(b"".join(data for _, data in batch), "<f4").reshape(len(batch), -1)
        return _Matrix(all_ids, everything)

    def nearest(self, vector: array[float], most: int, among: Collection[int] | None) -> list[tuple[int, float]]:
        np = _numpy()
        ids, scores = self._ids, self._matrix @ np.frombuffer(vector, np.float32)
        if among is not None:
            kept = np.isin(ids, np.fromiter(among, np.int64, len(among)), assume_unique=True)
            ids, scores = ids[kept], scores[kept]
        if most < len(ids):
            kept = scores >= np.partition(scores, -most)[-most]
            ids, scores = ids[kept], scores[kept]
        order = np.lexsort((ids, -scores))[:most]
        return list(zip(ids[order].tolist(), scores[order].tolist(), strict=True))


if sys.version_info >= (3, 12):
    _dot = math.sumprod
else:

    def _dot(one: Sequence[float], other: Sequence[float]) -> float:
        return float(sum(map(mul, one, other)))


class _Plain:
    def __init__(self, dimensions: int, ids: list[int], vectors: list[array[float]]) -> None:
        self._dimensions = dimensions
        self._ids = ids
        self._vectors = vectors

    @property
    def newest(self) -> int:
        return self._ids[-1] if self._ids else 0

    def grown(self, keep: Collection[int] | None, many: int, rows: Iterable[tuple[int, bytes]]) -> _Plain:  # noqa: ARG002 because lists need not be told
        kept = [pair for pair in zip(self._ids, self._vectors, strict=True) if keep is None or pair[0] in keep]
        new = [(ident, _little(array("f", data))) for ident, data in rows]
        both = kept + new
        return _Plain(self._dimensions, [ident for ident, _ in both], [vector for _, vector in both])

    def nearest(self, vector: array[float], most: int, among: Collection[int] | None) -> list[tuple[int, float]]:
        wanted = None if among is None else set(among)
        scored = (
            (ident, _dot(vector, other))
            for ident, other in zip(self._ids, self._vectors, strict=True)
            if wanted is None or ident in wanted
        )
        return nsmallest(most, scored, key=lambda pair: (-pair[1], pair[0]))
