"""Closed forms that a device needs while it runs. Times in seconds, rates in 1/s.

Source: arXiv 2412.21200, Theorem 1 and Remark 1.
"""

from __future__ import annotations


def jobs_per_prompt(layers: int, proposers: int) -> int:
    """Inferences that one prompt makes: (k + 1)·M + 1, and 1 when M = 0.

    `layers` is M >= 0, `proposers` is k >= 0, the peers asked per layer.
    Raises ValueError outside these ranges. Source: Theorem 1.
    """
    if layers < 0 or proposers < 0:
        raise ValueError(f"layers and proposers must be >= 0, got {layers} and {proposers}")
    return (proposers + 1) * layers + 1


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
