"""A circuit breaker: after some failures in a row nobody waits for the cloud until a probe has reached it again."""

from __future__ import annotations

from edge_deploy.core.errors import BadInput

__all__ = ["Breaker"]


class Breaker:
    """Closed while the cloud answers; open after `failures` in a row, with longer and longer pauses between probes.

    Requests ask `is_open` only, which reads one attribute; probes ask `probe_due`. A probe that gets through closes the
    breaker, but the pauses grow on until a request was answered: a cloud that is reachable and answers nonsense is not
    asked often.

    Args:
        failures: In a row, that open it.
        first_s: Pause before the first probe; `most_s`: the longest pause.
    """

    def __init__(self, *, failures: int = 3, first_s: float = 0.25, most_s: float = 2.0) -> None:
        if failures < 1 or not 0 < first_s <= most_s:
            raise BadInput(
                f"breaker: {failures} failures, {first_s} to {most_s} s: must be at least 1, and increasing."
            )
        self.is_open = False
        self.reason = ""
        self._failures, self._first_s, self._most_s = failures, first_s, most_s
        self._in_a_row = 0
        self._pause_s = first_s
        self._until_s = 0.0

    def succeeded(self) -> None:
        """A request was answered rightly."""
        if self._in_a_row or self._pause_s != self._first_s:
            self._in_a_row = 0
            self._pause_s = self._first_s

    def failed(self, now_s: float, reason: str, *, surely: bool = False) -> bool:
        """A request was not, or a probe.

        Args:
            surely: Open at once: the next request would meet the same.

        Returns:
            Whether the breaker opened by this.
        """
        self._in_a_row += 1
        if self.is_open or not (surely or self._in_a_row >= self._failures):
            return False
        self.reason = reason
        self._until_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._most_s)
        self.is_open = True
        return True

    def probe_due(self, now_s: float) -> bool:
        """Whether it is time to see if the cloud is back."""
        return self.is_open and now_s >= self._until_s

    def probed(self, now_s: float, *, answered: bool, reason: str = "") -> None:
        """What the probe found."""
        if answered:
            self._in_a_row = 0
            self.is_open = False
            self.reason = ""
            return
        self.reason = reason or self.reason
        self._until_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._most_s)
