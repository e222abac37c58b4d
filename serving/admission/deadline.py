"""The deadline: a moment by which a request must have begun, the same for all of its waits. Pure."""

from __future__ import annotations

from serving.records import record


@record
class Deadline:
    """A moment on the caller's clock.

    Attributes:
        at_s: the moment after which nothing is begun for the request.
        is_named: whether the client has named it. The site's default starts again when an engine dies under
            the request, because being worked on is not waiting.
    """

    at_s: float
    is_named: bool = False

    def left_s(self, now: float) -> float:
        """Seconds left until the deadline, at least 0."""
        return max(0.0, self.at_s - now)

    def has_passed(self, now: float) -> bool:
        """Whether it is too late to begin."""
        return now >= self.at_s
