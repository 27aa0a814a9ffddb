"""How many deliveries may wait for the database: about as many as it takes in ``TARGET_S``.

A commit takes some time of its own, and some for each delivery in it. Deliveries that wait share
commits, so that only the second makes a longer queue a longer wait. Least squares over the last
commits tell the one from the other: a disk that syncs slowly turns nobody away, a database that is
slow with each row does.
"""

from __future__ import annotations

TARGET_S = 0.25
MIN_WAITING = 32
MAX_WAITING = 4096
_KEPT = 0.9  # of what is known, at each commit: the last ten or so count
_TELLING = 8  # deliveries that a commit has where it says something of the next
_PRIOR = 64**-2  # the squared deviation of a batch's size, relative to it, that says enough


class Admission:
    """Learns from commits how many deliveries may wait.

    Attributes:
        most: deliveries that may wait now.
    """

    def __init__(self) -> None:
        self.most = MAX_WAITING
        self._weight = 0.0
        self._sizes = 0.0
        self._seconds = 0.0
        self._squares = 0.0
        self._products = 0.0

    def note(self, size: int, seconds: float, waiting: int) -> None:
        """Learn from a commit of so many deliveries, at the end of which so many others waited."""
        self._weight = self._weight * _KEPT + 1
        self._sizes = self._sizes * _KEPT + size
        self._seconds = self._seconds * _KEPT + seconds
        self._squares = self._squares * _KEPT + size * size
        self._products = self._products * _KEPT + size * seconds
        overloaded = waiting >= size >= _TELLING
        self.most = self._in_time() if overloaded else MAX_WAITING

    def _in_time(self) -> int:
        """Return how many deliveries are committed within the time.

        Batches of one size say nothing about what a delivery takes: it is then taken to be all
        that the commit takes.
        """
        mean, mean_s = self._sizes / self._weight, self._seconds / self._weight
        variance = max(self._squares / self._weight - mean * mean, 0.0)
        covariance = self._products / self._weight - mean * mean_s
        whole = mean_s / mean
        prior = mean * mean * _PRIOR
        each = min((covariance + prior * whole) / (variance + prior), whole)
        return max(MIN_WAITING, int(TARGET_S / max(each, TARGET_S / MAX_WAITING)))
