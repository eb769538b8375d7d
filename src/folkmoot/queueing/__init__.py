"""The science: closed forms of a moot's stability and latency, and the compiled simulator beside them.

Extra `[sim]`; times in seconds, rates in 1/s. `simulate(Question(…))` gives a `Result`; `rows`, `to_pandas` and `to_polars`
make a table of many, with the theory beside them. `folkmoot.core.law` has the service laws.
"""

from folkmoot.queueing.choice import best_limit as best_limit
from folkmoot.queueing.choice import best_limit_closed as best_limit_closed
from folkmoot.queueing.estimate import Interval as Interval
from folkmoot.queueing.frames import document as document
from folkmoot.queueing.frames import rows as rows
from folkmoot.queueing.frames import to_pandas as to_pandas
from folkmoot.queueing.frames import to_polars as to_polars
from folkmoot.queueing.latency import MEAN_FIELD_ERROR as MEAN_FIELD_ERROR
from folkmoot.queueing.latency import Latency as Latency
from folkmoot.queueing.latency import Moments as Moments
from folkmoot.queueing.latency import alone as alone
from folkmoot.queueing.latency import answer_age as answer_age
from folkmoot.queueing.latency import harmonic as harmonic
from folkmoot.queueing.latency import join_buffer as join_buffer
from folkmoot.queueing.latency import layer_of_two as layer_of_two
from folkmoot.queueing.latency import mean_field as mean_field
from folkmoot.queueing.latency import mean_field_exponential as mean_field_exponential
from folkmoot.queueing.latency import mg1_wait as mg1_wait
from folkmoot.queueing.latency import refining_alone as refining_alone
from folkmoot.queueing.latency import several_slots_alone as several_slots_alone
from folkmoot.queueing.latency import sojourn as sojourn
from folkmoot.queueing.moot import Device as Device
from folkmoot.queueing.moot import Question as Question
from folkmoot.queueing.moot import Result as Result
from folkmoot.queueing.moot import simulate as simulate
from folkmoot.queueing.overload import Fluid as Fluid
from folkmoot.queueing.overload import drift as drift
from folkmoot.queueing.overload import fluid as fluid
from folkmoot.queueing.overload import fluid_root as fluid_root
from folkmoot.queueing.overload import goodput as goodput
from folkmoot.queueing.published import script_queue as script_queue
from folkmoot.queueing.published import script_queue_alone as script_queue_alone
from folkmoot.queueing.stability import Judge as Judge
from folkmoot.queueing.stability import batched_service as batched_service
from folkmoot.queueing.stability import early_stopping_jobs as early_stopping_jobs
from folkmoot.queueing.stability import judged_loads as judged_loads
from folkmoot.queueing.stability import limit_rate as limit_rate
from folkmoot.queueing.stability import load as load
from folkmoot.queueing.stability import loads as loads
from folkmoot.queueing.stability import quorum_load as quorum_load
from folkmoot.queueing.stability import skipping_jobs as skipping_jobs
from folkmoot.queueing.stability import stage_load as stage_load

__all__ = [
    "MEAN_FIELD_ERROR",
    "Device",
    "Fluid",
    "Interval",
    "Judge",
    "Latency",
    "Moments",
    "Question",
    "Result",
    "alone",
    "answer_age",
    "batched_service",
    "best_limit",
    "best_limit_closed",
    "document",
    "drift",
    "early_stopping_jobs",
    "fluid",
    "fluid_root",
    "goodput",
    "harmonic",
    "join_buffer",
    "judged_loads",
    "layer_of_two",
    "limit_rate",
    "load",
    "loads",
    "mean_field",
    "mean_field_exponential",
    "mg1_wait",
    "quorum_load",
    "refining_alone",
    "rows",
    "script_queue",
    "script_queue_alone",
    "several_slots_alone",
    "simulate",
    "skipping_jobs",
    "sojourn",
    "stage_load",
    "to_pandas",
    "to_polars",
]
