"""One moment by which a request must have begun; it goes with the request through every wait. Pure."""

from __future__ import annotations

from serving.records import record


@record
class Deadline:
    """A moment on the caller's clock.

    Attributes:
        at_s: from then on nothing is begun for the request.
        is_named: its client has named it. One that the site gives begins anew when an engine had the request
            and died: work is no waiting.
    """

    at_s: float
    is_named: bool = False

    def left_s(self, now: float) -> float:
        """Seconds until then, at least 0."""
        return max(0.0, self.at_s - now)

    def has_passed(self, now: float) -> bool:
        """Whether it is too late to begin."""
        return now >= self.at_s
