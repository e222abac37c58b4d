"""The rate of requests at the peak: users, growth, waiting and thinking times. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.plan.model import Level, PlanConfig, Span

Pick = Mapping[str, Level]
USERS, ACTIVE, RATE, PEAK, GROWTH, THINK = (
    "users",
    "active_share",
    "rate_per_s",
    "peak_factor",
    "growth",
    "think_s",
)


def level(pick: Pick, name: str) -> Level:
    """The assumption about something; typical by default."""
    return pick.get(name, "typical")


def at(value: Span, pick: Pick, name: str) -> float:
    """A number under an assumption."""
    return value.at(level(pick, name))


def peak_rates(plan: PlanConfig, e2e_s: Mapping[str, float], pick: Pick) -> dict[str, float]:
    """Requests per second of each class at the peak.

    A user sends a request, waits for its answer, thinks, and sends the next one: rate = users / (E2E +
    think), averaged over the classes by their shares.

    Args:
        e2e_s: seconds of a request, by class.
    """
    factor = at(plan.peak_factor, pick, PEAK) * plan.growth.factor_at(level(pick, GROWTH))
    if plan.rate_per_s is not None:
        total = at(plan.rate_per_s, pick, RATE) * factor
    else:
        if plan.users is None or plan.active_share is None:
            raise AssertionError("PlanConfig checks that there are users")
        cycle_s = sum(
            plan.share_of(one)
            * (e2e_s[one.name] + (at(one.think_s, pick, THINK) if one.think_s else 0.0))
            for one in plan.traffic
        )
        active = at(plan.users, pick, USERS) * at(plan.active_share, pick, ACTIVE)
        total = active * factor / cycle_s
    return {one.name: total * plan.share_of(one) for one in plan.traffic}
