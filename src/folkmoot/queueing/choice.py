"""The best that any choice of peers, or of M and k, can do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import linprog

from folkmoot.core.price import Worth
from folkmoot.errors import TheoryError
from folkmoot.queueing._check import Floats, length, measurable, numbers, whole


def best_limit(services_s: Sequence[float] | Floats, layers: int, proposers: int) -> tuple[float, Floats]:
    """[E] Upper bound λ*_LP on the rate per device, 1/s, and weights that reach it, shape (n, n), rows sum to k.

    For every policy that keeps the origin's own slot and cancels nothing, all devices having one rate:
    maximise l subject to (M+1) l + Σ_i x_ij <= μ_j, Σ_j x_ij = kM l, 0 <= x_ij <= M l, x_ii = 0, where
    x_ij is the rate of jobs from i to j. With enough room it is mean(μ)/K, against min(μ)/K for uniform
    choice. Solved by HiGHS through scipy; n² variables, so n up to some hundreds. k <= n − 1, M >= 1. Source: derived here, rates counted.
    """
    count = length("services_s", services_s)
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
    if not found.x[size] > 0.0:
        raise TheoryError("the services differ by more than the linear programme can tell apart")
    weights = np.zeros((count, count))
    weights[origin, asked] = np.clip(found.x[:size] / (layers * found.x[size]), 0.0, 1.0)  # it errs by 1e-7
    return measurable("the limit", float(found.x[size] * scale)), weights


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


def best_utility(
    services_s: Sequence[float] | Floats, rates_hz: Sequence[float] | Floats, worths: Sequence[Worth]
) -> float:
    """[E] Upper bound on the mean worth of a prompt, in points, refused ones counted as 0.

    For every policy that keeps the origin's own slots and cancels nothing: maximise Σ_i λ_i Σ_c π_ic u_c / Σ_i λ_i subject
    to Σ_c π_ic <= 1, α_j [λ_j Σ_c π_jc (M_c + 1) + Σ_i x_ij] <= 1, Σ_j x_ij = λ_i Σ_c π_ic M_c k_c and, as a layer's peers
    differ, 0 <= x_ij <= λ_i Σ_{c: k_c >= 1} π_ic M_c, where π_ic is the share of device i's prompts that are answered with
    (M_c, k_c) and x_ij the rate of jobs from i to j. Solved by HiGHS through scipy; n² variables, so n up to some hundreds.
    Source: ADMISSION.md's bound, rates counted.
    """
    count = len(services_s)
    services = numbers("services_s", services_s, count, above=True)
    rates = numbers("rates_hz", rates_hz, count)
    if not worths or not rates.sum():
        raise TheoryError("a utility needs prompts, and a table of what they may be worth")
    layers, proposers, points = (np.array(column, float) for column in zip(*worths, strict=True))
    origin, asked = np.nonzero(~np.eye(count, dtype=bool))
    size, places = len(origin), np.arange(len(origin))

    def each(per_plan: Floats) -> sparse.csr_array:
        """λ_i Σ_c π_ic times a number per plan, a row for each device."""
        return sparse.csr_array(sparse.kron(sparse.diags_array(rates), per_plan[None, :]))

    def sums(device: npt.NDArray[np.int_]) -> sparse.csr_array:
        return sparse.csr_array((np.ones(size), (device, places)), (count, size))

    some = each(layers * (proposers > 0))
    found = linprog(
        -np.concatenate([np.kron(rates, points), np.zeros(size)]) / rates.sum(),
        A_ub=sparse.vstack(
            [
                sparse.hstack([sparse.kron(sparse.eye_array(count), np.ones((1, len(points)))), sparse.csr_array((count, size))]),
                sparse.diags_array(services) @ sparse.hstack([each(layers + 1.0), sums(asked)]),
                sparse.hstack([-some[origin], sparse.eye_array(size)]),
            ],
            format="csc",
        ),
        b_ub=np.concatenate([np.ones(2 * count), np.zeros(size)]),
        A_eq=sparse.hstack([each(layers * proposers), -sums(origin)], format="csc"),
        b_eq=np.zeros(count),
        method="highs",
    )  # fmt: skip
    if not found.success:
        raise TheoryError(f"the linear programme was not solved: {found.message}")
    return -float(found.fun)
