"""Closed forms that a device needs while it runs. Times in seconds, rates in 1/s.

Source: arXiv 2412.21200, Theorem 1 and Remark 1.
"""

from __future__ import annotations

from collections.abc import Sequence


def jobs_per_prompt(layers: int, proposers: int) -> int:
    """Inferences that one prompt makes: (k + 1)·M + 1, and 1 when M = 0.

    `layers` is M >= 0, `proposers` is k >= 0, the peers asked per layer.
    Raises ValueError outside these ranges. Source: Theorem 1.
    """
    if layers < 0 or proposers < 0:
        raise ValueError(f"layers and proposers must be >= 0, got {layers} and {proposers}")
    return (proposers + 1) * layers + 1


def judges_at_most(layers: int, proposers: int, keep: int = 0, early_stop: bool = False) -> int:
    """Jobs of stage `judge` that one prompt makes if none of them ends it early.

    One after each layer but the last where they may stop the layers, and after the last one as well where `keep` < k + 1
    answers go on (0: all). None where a layer has one answer only. `layers` and `proposers` as in `jobs_per_prompt`.
    """
    if not layers or not proposers:
        return 0
    return layers if 0 < keep <= proposers else (layers - 1) * early_stop


def judged_jobs(
    layers: int, proposers: int, keep: int = 0, early_stop: bool = False, stops: Sequence[float] = ()
) -> float:
    """[E] K = (k + 1) E[layers] + 1 + E[judges]: jobs of a prompt whose layers are judged.

    `stops` has M − 1 chances, that the judge ends it after layer 1, 2, … where it comes so far; without them all layers run.
    Raises ValueError for another number of them, and outside the ranges. Source: Theorem 1, with the mean number of layers.
    """
    reached, judged = judged_stages(layers, proposers, keep, early_stop, stops)
    return (proposers + 1) * reached + 1.0 + judged


def judged_stages(
    layers: int, proposers: int, keep: int = 0, early_stop: bool = False, stops: Sequence[float] = ()
) -> tuple[float, float]:
    """[E] E[layers] and E[judges] of `judged_jobs`, which says what is given and raised."""
    jobs_per_prompt(layers, proposers)  # checks the ranges
    if not stops:
        return float(layers), float(judges_at_most(layers, proposers, keep, early_stop))
    if len(stops) != layers - 1 or not all(0.0 <= each <= 1.0 for each in stops):
        raise ValueError(
            f"{layers} layers have {layers - 1} chances to stop, from 0 to 1; got {tuple(stops)}"
        )
    if not (early_stop and proposers):
        raise ValueError(
            "only a judge of two answers or more stops the layers: early_stop, and k of 1 or more"
        )
    reached = [1.0]
    for stop in stops:
        reached.append(reached[-1] * (1.0 - stop))
    return sum(reached), sum(reached) if 0 < keep <= proposers else sum(reached[:-1])


def offered_load(service_s: float, rate_hz: float, layers: int, proposers: int) -> float:
    """ρ = α((k + 1)·M + 1)λ of every device when all are alike; the queues stay bounded below 1.

    `service_s` is α > 0, `rate_hz` is λ >= 0, prompts per second and device. Source: Theorem 1.
    """
    return service_s * jobs_per_prompt(layers, proposers) * rate_hz


def limit_rate(service_s: float, layers: int, proposers: int) -> float:
    """λ*, the prompts per second and device at which ρ reaches 1. Source: Theorem 1."""
    if service_s <= 0:
        raise ValueError(f"service_s must be > 0, got {service_s}")
    return 1.0 / (service_s * jobs_per_prompt(layers, proposers))
