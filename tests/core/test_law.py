from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.core.law import Exponential, Fixed, Law, Lognormal, Trace, Weibull, parse_law, parse_laws, trace
from folkmoot.errors import ConfigError

TABLE = [["id", "fast", "slow"], ["a", "1", "3"], ["b", "2", "6"]]
LAWS: list[Law] = [Exponential(2.0), Fixed(2.0), Lognormal(2.0, 0.5), Weibull(2.0, 1.65)]


def read(file: str) -> list[list[str]]:
    return TABLE


@pytest.mark.parametrize("law", LAWS)
def test_the_quantiles_integrate_to_the_mean(law: Law) -> None:
    count = 200_000
    total = math.fsum(law.quantile((step + 0.5) / count) for step in range(count))
    assert total / count == pytest.approx(2.0, rel=2e-3)


@pytest.mark.parametrize("law", LAWS)
@given(u=st.floats(0, 1, exclude_max=True))
def test_every_draw_is_a_time(law: Law, u: float) -> None:
    assert 0 <= law.quantile(u) < math.inf


def test_variation_and_shape_are_what_they_say() -> None:
    count = 200_000
    law = Lognormal(2.0, 0.5)
    squares = math.fsum(law.quantile((step + 0.5) / count) ** 2 for step in range(count)) / count
    assert math.sqrt(squares - 4) / 2 == pytest.approx(0.5, rel=1e-2)
    assert Weibull(2.0, 1.0).quantile(0.3) == pytest.approx(Exponential(2.0).quantile(0.3))


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("exp:2.5", Exponential(2.5)),
        ("det:0", Fixed(0.0)),
        ("det:1e-3", Fixed(0.001)),
        ("lognormal:2:0.5", Lognormal(2.0, 0.5)),
        ("weibull:2:1.65", Weibull(2.0, 1.65)),
        ("trace:f.csv", Trace(("fast", "slow"), ((1.0, 3.0), (2.0, 6.0)))),
        ("trace:f.csv:slow", Trace(("slow",), ((3.0,), (6.0,)))),
        ("trace:f.csv:slow+fast:6", Trace(("slow", "fast"), ((6.0, 2.0), (12.0, 4.0)))),
        ("trace:f.csv::3", Trace(("fast", "slow"), ((1.0, 3.0), (2.0, 6.0)))),
    ],
)
def test_forms(text: str, law: Law) -> None:
    assert parse_law(text, read) == law


@pytest.mark.parametrize(
    "text",
    ["", "exp", "exp:", "exp:0", "exp:-1", "exp:nan", "exp:inf", "exp:1:2", "det:-1", "lognormal:1", "weibull:1:0",
     "exp:1e-320", "exp:1e308", "det:1e16", "lognormal:1:1e200", "weibull:1:1e-3", "weibull:1:1e300", "trace:f:fast:1e308",
     "gamma:1", "trace:", "trace:f:a:1:2", "trace:f:nope", "trace:f:id", "trace:f:fast:0"],
)  # fmt: skip
def test_bad_text_names_itself_and_the_remedy(text: str) -> None:
    with pytest.raises(ConfigError, match="must be|write|column") as caught:
        parse_law(text, read)
    assert repr(text) in str(caught.value)


def test_no_reader_no_trace() -> None:
    with pytest.raises(ConfigError, match="no traces here"):
        parse_law("trace:f.csv")


@pytest.mark.parametrize("table", [[["a"]], [], [["a"], ["-1"]], [["a"], ["inf"]], [["a"], ["x"]]])
def test_a_trace_without_times_is_refused(table: list[list[str]]) -> None:
    with pytest.raises(ConfigError):
        parse_law("trace:f.csv:a", lambda file: table)
    with pytest.raises(ConfigError):
        parse_law("trace:f.csv", lambda file: table)


@pytest.mark.parametrize("hole", ["", " ", "nan", "?", "1e-320", "1e308", "-1", "inf"])
@pytest.mark.parametrize("columns", ["", ":a+b"])
def test_a_hole_in_a_column_is_told(hole: str, columns: str) -> None:
    with pytest.raises(ConfigError, match="row 2 below the header has .*no time in column 'b'"):
        parse_law(f"trace:f.csv{columns}", lambda file: [["a", "b"], ["1", "2"], ["3", hole]])


@pytest.mark.parametrize("hole", ["", "NA"])
def test_a_column_with_holes_is_not_left_out_in_silence(hole: str) -> None:
    def table(file: str) -> list[list[str]]:
        return [["id", "a", "b", "note"], ["x1", "1", hole, "x"], ["x2", "3", "4", ""]]

    with pytest.raises(ConfigError, match="row 1 below the header has .*no time in column 'b'"):
        parse_law("trace:f.csv", table)
    assert parse_law("trace:f.csv:a", table) == Trace(("a",), ((1.0,), (3.0,)))


def test_one_row_serves_all_devices_of_a_prompt() -> None:
    law = parse_law("trace:f.csv", read)
    assert [law.quantile(0.9, device) for device in range(3)] == [2.0, 6.0, 2.0]
    assert law.quantile(0.0) == 1.0
    assert law.quantile(math.nextafter(1, 0)) == 2.0
    assert law.mean == 3.0


def test_one_law_a_device() -> None:
    assert parse_laws("exp:1,det:2") == (Exponential(1.0), Fixed(2.0))


def test_a_table_without_names_is_refused() -> None:
    with pytest.raises(ConfigError, match="first row holds numbers only"):
        trace("trace:x.csv", [["20"], ["25"], ["30"]])
    assert trace("trace:x.csv", [["id", "s"], ["7", "25"]], ("s",)).rows == ((25.0,),)
