"""What first come first served does beyond its limit: the fluid root, the drift, the goodput.

Beyond the limit every queue holds early-stage jobs above all, each prompt waits at every stage, and ever
fewer prompts get to their end: congestion collapse. All three are [C]: derived from a fluid model and
confirmed by simulation; near the limit and at small n a finite-size bias of some per cent is real. Devices are alike,
k <= n − 1, and the services of a stage may follow any law. Source: derived here.
"""

from __future__ import annotations

from collections.abc import Sequence

from scipy.optimize import brentq

from folkmoot.queueing._check import number, numbers, whole


def fluid_root(
    rate_hz: float, stage_services_s: Sequence[float], aggregate_s: float, proposers: int
) -> float:
    """[C] x in (0, 1] with λ[(k+1)(α_1 x + … + α_M x^M) + α_agg x^(M+1)] = 1; 1 where the load is at most 1.

    x is the share of a stage's jobs that is ever served: jobs of stage m arrive at x^(m−1) times the rate
    of stage 1. `stage_services_s` has M values in seconds, none for M = 0. Source: derived here (see the top of this file).
    """
    number("rate_hz", rate_hz, above=True)
    services = [*numbers("stage_services_s", stage_services_s or [0.0], max(1, len(stage_services_s)))]
    services = services if stage_services_s else []
    number("aggregate_s", aggregate_s, above=not stage_services_s)
    fan = whole("proposers", proposers) + 1

    def excess(x: float) -> float:
        served = fan * sum(service * x ** (stage + 1) for stage, service in enumerate(services))
        return float(rate_hz * (served + aggregate_s * x ** (len(services) + 1)) - 1.0)

    return 1.0 if excess(1.0) <= 0.0 else float(brentq(excess, 0.0, 1.0, xtol=1e-14))


def drift(rate_hz: float, stage_services_s: Sequence[float], aggregate_s: float, proposers: int) -> float:
    """[C] Growth of the number waiting per device, jobs per second: λ[(k+1)(1+x+…+x^(M−1)) + x^M](1−x).

    With equal stages it is (1/x − 1)/α; the naive (ρ − 1)/α is right for M = 0 only. 0 where the load is at most 1.
    Source: jobs that come less those that are served, x of each stage.
    """
    x = fluid_root(rate_hz, stage_services_s, aggregate_s, proposers)
    stages = len(stage_services_s)
    arriving = (proposers + 1) * sum(x**stage for stage in range(stages)) + x**stages
    return rate_hz * arriving * (1.0 - x)


def goodput(rate_hz: float, stage_services_s: Sequence[float], aggregate_s: float, proposers: int) -> float:
    """[C] Prompts that reach their end, per second and device: λ x^(M+1). Source: x of each of M + 1 stages is served."""
    x = fluid_root(rate_hz, stage_services_s, aggregate_s, proposers)
    return float(rate_hz * x ** (len(stage_services_s) + 1))
