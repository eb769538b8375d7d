"""The best that any choice of peers can do for the stability region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from folkmoot.errors import TheoryError
from folkmoot.queueing._check import Floats, numbers, whole


def best_limit(services_s: Sequence[float] | Floats, layers: int, proposers: int) -> tuple[float, Floats]:
    """[E] Upper bound λ*_LP on the rate per device, 1/s, and weights that reach it, shape (n, n), rows sum to k.

    For every policy that keeps the origin's own slot and cancels nothing, all devices having one rate:
    maximise l subject to (M+1) l + Σ_i x_ij <= μ_j, Σ_j x_ij = kM l, 0 <= x_ij <= M l, x_ii = 0, where
    x_ij is the rate of jobs from i to j. With enough room it is mean(μ)/K, against min(μ)/K for uniform
    choice. Solved by HiGHS through scipy; n² variables, so n up to some hundreds. k <= n − 1, M >= 1. Source: derived here, rates counted.
    """
    count = len(services_s)
    whole("layers", layers, least=1)
    whole("proposers", proposers, most=count - 1)
    capacity = 1.0 / numbers("services_s", services_s, count, above=True)
    origin, asked = np.nonzero(~np.eye(count, dtype=bool) if proposers else np.zeros((count, count)))
    size = len(origin)
    places, ones = np.arange(size), np.ones(size)

    def with_rate(part: sparse.coo_array, rate: float) -> sparse.coo_array:
        column = sparse.coo_array(np.full((part.shape[0], 1), rate))
        return sparse.hstack([part, column], format="coo")

    serve = with_rate(sparse.coo_array((ones, (asked, places)), (count, size)), layers + 1.0)
    send = with_rate(sparse.coo_array((ones, (origin, places)), (count, size)), -float(proposers * layers))
    share = with_rate(sparse.coo_array((ones, (places, places)), (size, size)), -float(layers))
    scale = capacity.max()  # HiGHS has absolute tolerances
    cost = np.zeros(size + 1)
    cost[size] = -1.0
    found = linprog(
        cost,
        A_ub=sparse.vstack([serve, share], format="csc"),
        b_ub=np.concatenate([capacity / scale, np.zeros(size)]),
        A_eq=send.tocsc(),
        b_eq=np.zeros(count),
        method="highs",
    )
    if not found.success:
        raise TheoryError(f"the linear programme was not solved: {found.message}")
    weights = np.zeros((count, count))
    weights[origin, asked] = np.clip(found.x[:size] / (layers * found.x[size]), 0.0, 1.0)  # it errs by 1e-7
    return float(found.x[size] * scale), weights


def best_limit_closed(services_s: Sequence[float] | Floats, layers: int, proposers: int) -> float:
    """[E] The same bound without a linear programme, 1/s, by bisection.

    λ*_LP = max{ l <= μ_min/(M+1) : Σ_j min((n−1) M l, μ_j − (M+1) l) >= n k M l }. Any n, k <= n − 1, M >= 1.
    Source: derived here, the programme's cut conditions.
    """
    count = len(services_s)
    whole("layers", layers, least=1)
    whole("proposers", proposers, most=count - 1)
    capacity = 1.0 / numbers("services_s", services_s, count, above=True)

    def fits(rate: float) -> bool:
        room = np.minimum((count - 1) * layers * rate, capacity - (layers + 1) * rate)
        # With k = n − 1 the two are equal at every rate up to the limit.
        return bool(room.sum() >= count * proposers * layers * rate * (1.0 - 1e-12))

    low, high = 0.0, float(capacity.min()) / (layers + 1)
    if fits(high):
        return high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
