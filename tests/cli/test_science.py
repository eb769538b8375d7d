"""`theory`, `simulate` and `validate` from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from folkmoot import queueing
from folkmoot.cli import exits, group
from folkmoot.cli.cluster import cores
from folkmoot.cli.simulate import CORE_HORIZON, HORIZON
from folkmoot.queueing import validate
from folkmoot.sim import exact

HUGE = "1" + 30 * "0"


@pytest.fixture
def run(home, capsys):
    def command(*arguments: str) -> tuple[int, str, str]:
        code = exits.run(
            lambda: group.main(arguments, prog_name="folkmoot", standalone_mode=False), debug=False
        )
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_theory_below_and_beyond_the_limit(run):
    code, out, err = run("theory", "-M", "2", "-k", "3", "-n", "20", "--load", "1.5", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["jobs_per_prompt"] == 9
    assert not found["stable"]
    assert found["latency"] is None
    assert found["overload"]["drift"] == pytest.approx(0.2859, abs=1e-4)
    code, out, _ = run("theory", "--rate", "0.05")
    assert code == 0
    assert "[E] load of the busiest device 0.25" in out
    assert "[A] mean latency" in out


def test_theory_beyond_the_limit_of_devices_that_differ(run):
    laws = ",".join(["exp:4"] + ["exp:1"] * 19)
    flags = ("theory", "-n", "20", "-M", "1", "-k", "3", "--rate", "0.15", "--service", laws)
    found = json.loads(run(*flags, "--json")[1])["overload"]
    assert (found["tag"], len(found["drifts"])) == ("C", 20)
    assert [drift > 0 for drift in found["drifts"]] == [True] + [False] * 19
    assert found["goodput_of_limit"] > 1, "the fast devices go on without the slow one"
    out = run(*flags)[1]
    assert "they grow at 1 of 20 devices, most at device 0: 0.4681 (within 3 % where it was simulated)" in out
    for far in (("--rate", "1", "--service", laws), ("--rate", "0.3", "--service", "weibull:1:0.2")):
        assert "error is not known here" in run(*flags[:-4], *far)[1]
    assert "[C] 0.1296 prompts/s and device get to their end, 259 % of the limit" in out


def test_every_figure_says_how_sure_it_is(run):
    out = run("theory", "--rate", "0.05")[1]
    assert "[C] the queues stay bounded" in out
    assert "[A] mean latency" in out
    assert "join buffer, 0 to 35 % too high where it was simulated" in out
    far = ("-n", "32", "-k", "31", "--service", "det:1", "--load", "0.9")
    assert "mean field, error not known here" in run("theory", *far)[1]
    found = json.loads(run("theory", *far, "--json")[1])["latency"]
    assert (found["error_low"], found["error_high"]) == (None, None)
    exact = run("theory", "-M", "0", "--load", "0.9", "--service", "lognormal:1:3")[1]
    assert "[E] mean latency 46 s" in exact
    assert "[E] the queues stay bounded" in exact
    heavy = run("theory", "-M", "1", "-k", "1", "--load", "0.3", "--service", "lognormal:1:100")[1]
    assert "long tails cost its numbers" in heavy
    many = ",".join(f"exp:{1 + device / 1000}" for device in range(300))
    assert "too many for the mean field" in run("theory", "-n", "300", "--service", many, "--rate", "0.01")[1]


def test_plan_says_how_sure_it_is(run):
    flags = ("plan", "-n", "12", "--rate", "0.01", "--max-layers", "1", "--max-proposers", "9")
    rows = {row["proposers"]: row for row in json.loads(run(*flags, "--json")[1])["choices"]}
    assert (rows[7]["error_low"], rows[7]["error_high"]) == queueing.MEAN_FIELD_ERROR[True]
    assert (rows[9]["tag"], rows[9]["error_low"], rows[9]["error_high"]) == ("A", None, None)
    out = run(*flags)[1].splitlines()
    assert "where it was simulated" in out[8]
    assert "error not known here" in out[10]


def test_services_without_length(run):
    for service in ("det:0", "det:0,exp:1,exp:1,exp:1"):
        for command in ("theory", "plan"):
            code, _, err = run(command, "--service", service, "--rate", "0.1")
            assert (code, err) == (0, "")
    found = json.loads(
        run("simulate", "--service", "det:0", "--rate", "1", "--horizon", "50", "--reps", "2", "--json")[1]
    )
    assert (found["latency"]["mean"], found["theory"]["limit_rate"], found["queue_size"]["mean"]) == (
        0,
        None,
        0,
    )


def test_a_device_that_grows_is_named(run):
    laws = ",".join(["exp:4"] + ["exp:1"] * 19)
    flags = ("simulate", "-n", "20", "-k", "3", "--rate", "0.1", "--service", laws, "--horizon", "1000")
    code, out, _ = run(*flags, "--reps", "5")
    assert code == 0
    assert "it grows at 1 of 20 devices, most at device 0" in out


def test_what_a_quorum_saves(run):
    found = json.loads(run("theory", "-M", "2", "-k", "3", "--rate", "0.1", "--quorum", "2", "--json")[1])
    assert (found["load"], found["load_most"], found["latency"]) == (
        pytest.approx(0.5),
        pytest.approx(0.9),
        None,
    )
    fixed = ("--quorum", "2", "--service", "det:1")
    found = json.loads(run("theory", "--rate", "0.3", *fixed, "--json")[1])
    assert (found["load"], found["rho"], found["limit_rate"], found["stable"]) == (
        None,
        [None] * 4,
        None,
        None,
    )
    assert "at most 0.5" in run("theory", "--rate", "0.1", *fixed)[1]
    assert (
        "at most 0.5 (how much less"
        in run("simulate", "--rate", "0.1", *fixed, "--reps", "2", "--horizon", "100")[1]
    )
    code, _, err = run("simulate", "--load", "0.5", *fixed)
    assert (code, "give --rate" in err) == (2, True)


def test_simulate_says_the_same_again_and_for_any_number_of_workers(run):
    arguments = ("simulate", "--reps", "4", "--horizon", "500", "--json", "--load", "0.5", "--seed", "7")
    found = [json.loads(run(*arguments, "--workers", workers)[1]) for workers in ("1", "2")]
    for each in found:
        assert each.pop("wall_s") > 0
        assert each.pop("inferences_per_s") > 0
    assert found[0] == found[1]
    assert found[0]["theory"]["rho"] == pytest.approx([0.5] * 4)
    assert found[0]["latency"]["mean_low"] < found[0]["latency"]["mean"] < found[0]["latency"]["p99"]
    assert json.loads(run(*arguments[:-1], "8")[1])["latency"] != found[0]["latency"]


def test_the_paper_s_mode_is_another(run):
    code, out, _ = run(
        "simulate", "--mode", "paper", "--rate", "0.25", "--service", "exp:45", "--reps", "20", "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert (found["verdict"], found["unfinished"]) == ("undecided", 0)
    assert found["drift"] == {"value": None, "low": None, "high": None}
    assert found["inferences"] == 20 * 10 * 5


def test_the_best_of_d_on_old_views(run):
    """Two devices of six are slow: any choice overloads them at 1.3 times its limit, the best of four does not."""
    arguments = (
        *("simulate", "-n", "6", "-M", "1", "-k", "1", "--service", "exp:1,exp:1,exp:3,exp:1,exp:1,exp:3"),
        *("--load", "1.3", "--horizon", "8000", "--reps", "8", "--json"),
    )
    found = {
        select: json.loads(run(*arguments, *select)[1])
        for select in [(), ("--select", "best-of:4", "--view-age", "2")]
    }
    any_peers, best = found.values()
    assert (any_peers["select"], any_peers["verdict"]) == ("uniform", "unstable")
    assert (best["select"], best["verdict"], best["view_age_s"]) == ("best-of:4", "stable", 2)


def test_the_peers_that_are_named_and_no_others(run):
    """Origins that are named ask the rest of them: as the protocol has it, which refuses a selection with the origin."""
    flags = ("simulate", "-n", "5", "-M", "2", "--rate", "0.05", "--select", "fixed:3+1", "--json")
    for quorum in ((), ("--quorum", "2")):
        some = (*flags, *quorum, "--horizon", "60", "--reps", "2")
        compiled, core = (json.loads(run(*some, *more)[1]) for more in ((), ("--core", "--workers", "1")))
        assert core["latency"]["mean"] == pytest.approx(compiled["latency"]["mean"])
        assert (core["inferences"], core["select"]) == (compiled["inferences"], "fixed:3+1")
    found = json.loads(run(*flags, "--reps", "4", "--horizon", "3000")[1])
    assert (found["select"], found["proposers"], found["verdict"]) == ("fixed:3+1", 2, "stable")
    own, asked = 0.05 * (2 + 1), 0.05 * 2 * 4  # M + 1 of its own; M for each of the four others
    assert found["theory"]["rho"] == pytest.approx([own, own + asked, own, own + asked, own])
    for one in found["per_device"]:
        assert one["utilisation"] == pytest.approx(one["rho"], rel=0.1)
    alone = json.loads(run(*flags, "-M", "0", "--reps", "2", "--horizon", "50")[1])
    assert (alone["layers"], alone["proposers"]) == (0, 0)
    everybody = json.loads(run(*flags[:-3], "--select", "fixed:0+1+2+3+4", "--reps", "2", "--json")[1])
    assert everybody["theory"]["rho"] == pytest.approx([0.05 * (2 * 5 + 1)] * 5)


def test_what_the_theory_says_of_the_best_of_d(run):
    """Equal devices keep Theorem 1 whoever is asked; of others the bound on any choice of peers is known."""
    equal = json.loads(
        run("theory", "-n", "6", "-k", "2", "--select", "best-of:4", "--rate", "0.1", "--json")[1]
    )
    assert (equal["load"], equal["limit_rate"], equal["stable"]) == (
        pytest.approx(0.4),
        pytest.approx(0.25),
        True,
    )
    assert (equal["latency"], equal["select"]) == (None, "best-of:4")
    assert "best of d" in equal["no_latency"]
    same = ("theory", "-n", "6", "-k", "2", "--rate", "0.1", "--json")
    drawn_all = json.loads(run(*same, "--select", "best-of:2")[1])
    assert drawn_all | {"select": "uniform"} == json.loads(run(*same)[1]), "the best 2 of 2 are any 2"
    uneven = ("theory", "-n", "4", "-k", "1", "--service", "exp:1,exp:1,exp:3,exp:3", "--select", "best-of:2")
    lines = {rate: run(*uneven, "--rate", rate)[1] for rate in ("0.1", "0.15", "0.2")}
    assert (
        "[E] load of the busiest device 0.9 at 0.1 prompts/s and device with any peers\n[C]" in lines["0.1"]
    )
    assert "whether its queues stay bounded with best-of:2 is not known" in lines["0.15"]
    assert "[E] queues grow without bound whoever is asked" in lines["0.2"]
    for out in lines.values():
        assert "[E] limit with any peers 0.1111 prompts/s and device\n" in out
        assert "[E] no choice of peers can raise the limit beyond 0.1667 prompts/s" in out
    found = json.loads(run(*uneven, "--rate", "0.15", "--json")[1])
    assert (found["stable"], found["limit_rate"]) == (None, None)
    assert found["best_choice_limit"] == pytest.approx(1 / 6)


def test_simulate_and_theory_agree_on_which_limit_is_known(run):
    """Of the best of d among devices that differ neither knows it; where all neighbours are asked both do."""
    few = ("--horizon", "100", "--reps", "2", "--json")
    uneven = ("-n", "4", "-k", "1", "--service", "exp:1,exp:1,exp:3,exp:3", "--select", "best-of:2")
    all_asked = ("-n", "6", "-k", "3", "--topology", "ring", "--select", "best-of:3")
    for flags, known in ((uneven, False), (all_asked, True)):
        seen = json.loads(run("simulate", *flags, "--rate", "0.1", *few)[1])
        told = json.loads(run("theory", *flags, "--rate", "0.1", "--json")[1])
        assert seen["theory"]["limit_rate"] == (pytest.approx(told["limit_rate"]) if known else None)
        assert (told["limit_rate"] is not None, seen["goodput_of_limit"] is not None) == (known, known)
    assert told["latency"] is not None
    assert told["latency"]["tag"] == "A"


def test_without_layers_what_lies_beyond_the_limit_is_exact(run):
    flags = ("-M", "0", "--load", "2", "--service", "weibull:1:0.2")
    found = json.loads(run("theory", *flags, "--json")[1])["overload"]
    assert (found["tag"], found["error_low"], found["error_high"]) == ("E", 0.0, 0.0)
    assert (
        "[E] first come first served: 1 jobs more wait at each device per service time\n"
        in run("theory", *flags)[1]
    )
    layered = ("-M", "1", "-k", "1", "--load", "2")
    assert "(within 3 % where it was simulated)" in run("theory", *layered)[1]
    assert "(its error is not known here)" in run("theory", *layered, "--skip-aggregation", "0.7")[1]
    assert "(its error is not known here)" in run("theory", *layered, *flags[-2:])[1]


@pytest.mark.parametrize("shape", ["100", "200", "1000", "1e6"])
def test_services_that_hardly_vary_are_nearly_fixed(run, shape):
    def latency(law: str) -> float:
        return json.loads(run("theory", "--service", law, "--json")[1])["latency"]["mean"]

    assert latency(f"weibull:1:{shape}") == pytest.approx(latency("det:1"), rel=2e-3)


def test_a_verdict_that_the_load_contradicts_is_told_as_chance(run):
    out = run("simulate", "--load", "0.5", "--seed", "25", "--horizon", "20000")[1]
    assert "unstable: the number waiting grows by" in out
    assert "the load says that it is stable" in out
    assert "no mean latency" not in out


def test_a_ring_has_two_peers(run):
    code, out, err = run("theory", "--topology", "ring", "--json")
    found = json.loads(out)
    assert (code, found["proposers"], found["jobs_per_prompt"], err) == (0, 2, 4.0, "")


@pytest.mark.parametrize("command", [("theory",), ("simulate", "--horizon", "50", "--reps", "2")])
def test_fewer_peers_than_k_are_told(run, command):
    ring = ("-n", "5", "-k", "3", "--topology", "ring", "--json")
    code, _, err = run(*command, *ring)
    assert (code, err) == (
        0,
        "folkmoot: k is 3, but 5 of 5 devices may ask fewer by this --topology (2 at least) and ask all of these\n",
    )
    assert run(*command, "-n", "5", "-k", "2", *ring[4:])[2] == ""
    assert run(*command, "--select", "fixed:0+1", "--json")[2] == "", "each of the named asks the others"


def test_at_the_limit_nothing_is_told_beyond_it(run):
    out = run("theory", "--load", "1")[1]
    assert "its queue grows without bound" in out
    assert "first come first served" not in out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,a\n1,2\n", "column 'a' stands there twice"),
        ("a,b\n1,2,3\n", "3 cells for 2 columns"),
        ("a;b\n1;2\n", "separated by commas"),
    ],
)
def test_traces_that_say_two_things_are_refused(run, tmp_path, text, says):
    file = tmp_path / "t.csv"
    file.write_text(text)
    code, out, err = run("theory", "--service", f"trace:{file}")
    assert (code, out, says in err) == (2, "", True)


def test_a_mark_of_its_byte_order_is_no_part_of_a_trace(run, tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a,b\n1,2\n3,4\n", encoding="utf-8-sig")
    assert run("theory", "--service", f"trace:{file}:a", "--json")[0] == 0


def test_a_trace_of_zeros_is_planned(run, tmp_path):
    trace = tmp_path / "zeros.csv"
    trace.write_text("a\n0\n0\n")
    flags = ("--rate", "1", "--service", f"trace:{trace}", "--max-layers", "1", "--deadline", "1")
    code, out, err = run("plan", *flags)
    assert (code, err) == (0, "")
    assert "expected latency 0 s [E]  <- best" in out


def test_the_loads_of_peers_that_are_named_are_exact(run):
    flags = ("-n", "5", "-M", "2", "--rate", "0.05", "--select", "fixed:3+1", "--json")
    found = json.loads(run("theory", *flags)[1])
    seen = json.loads(run("simulate", *flags, "--horizon", "50", "--reps", "2")[1])
    assert found["rho"] == seen["theory"]["rho"]
    assert found["jobs_per_prompt"] == pytest.approx(2 * (3 * 3 + 2 * 2) / 5 + 1)
    rows = json.loads(run("plan", *flags[:2], *flags[4:])[1])["choices"]
    assert [(row["layers"], row["proposers"]) for row in rows] == [(0, 0), (1, 2), (2, 2), (3, 2)]
    assert rows[2]["load"] == pytest.approx(max(found["rho"]))


def test_a_judge_s_jobs_move_the_limit(run):
    """Two layers of four: nine jobs; a judge of each makes it eleven, and half of the second layers are skipped."""
    two = ("-M", "2", "-k", "3", "--rate", "0.05", "--keep", "2")
    found = json.loads(run("theory", *two, "--json")[1])
    assert (found["jobs_per_prompt"], found["judges_per_prompt"], found["keep"]) == (11, 2, 2)
    assert (found["load"], found["limit_rate"]) == (pytest.approx(0.55), pytest.approx(1 / 11))
    assert (found["latency"], found["no_latency"]) == (None, "no closed form is known with a judge")
    code, out, _ = run("theory", *two, "--early-stop", "--stop-chance", "0.5")
    assert code == 0
    assert "8.5 jobs a prompt, 1.5 of them a judge's" in out
    rows = json.loads(run("plan", "--rate", "0.05", "--max-layers", "2", *two[-2:], "--json")[1])["choices"]
    jobs = {(row["layers"], row["proposers"]): row["jobs_per_prompt"] for row in rows}
    assert jobs == {(0, 0): 1, (1, 1): 3, (1, 2): 5, (1, 3): 6, (2, 1): 5, (2, 2): 9, (2, 3): 11}
    assert [row["limit_rate"] for row in rows] == pytest.approx([1 / each for each in jobs.values()])


def test_plan_with_the_best_of_d(run):
    flags = (
        "plan",
        "-n",
        "4",
        "--service",
        "exp:1,exp:1,exp:3,exp:3",
        "--rate",
        "0.1",
        "--select",
        "best-of:2",
    )
    rows = json.loads(run(*flags, "--json")[1])["choices"]
    assert max(row["proposers"] for row in rows) == 2
    (one,) = (row for row in rows if (row["layers"], row["proposers"]) == (1, 1))
    assert (one["stable"], one["limit_rate"], one["latency"]) == (True, None, None)
    assert one["best_choice_limit"] == pytest.approx(1 / 6)
    assert (
        "M=1 k=1: load 0.900 with any peers, no choice of peers carries more than 0.1667 prompts/s and device, "
        "latency not known\n"
    ) in run(*flags)[1]


def test_a_graph_from_a_file(run, tmp_path: Path):
    path = tmp_path / "path.txt"
    path.write_text("1\n0 2\n1\n")
    found = json.loads(
        run("theory", "-n", "3", "-k", "1", "--rate", "0.1", "--topology", str(path), "--json")[1]
    )
    assert found["rho"] == pytest.approx([0.2 + 0.05, 0.2 + 0.2, 0.2 + 0.05])


def test_jobs_of_a_prompt_whose_origin_may_ask_fewer_than_k(run):
    for topology, k, jobs in (("ring", 5, 3), ("ring", 1, 2), ("star", 3, (4 + 5 * 2) / 6)):
        flags = ("-n", "6", "-M", "2", "-k", str(k), "--topology", topology, "--rate", "0.01")
        found = json.loads(run("theory", *flags, "--json")[1])
        assert found["jobs_per_prompt"] == pytest.approx(2 * jobs + 1)
        assert sum(found["rho"]) == pytest.approx(6 * 0.01 * found["jobs_per_prompt"])
        assert f"{2 * jobs + 1:.6g} jobs a prompt" in run("theory", *flags)[1]
        seen = json.loads(run("simulate", *flags, "--horizon", "100", "--reps", "4", "--json")[1])
        assert seen["inferences"] == pytest.approx(6 * 4 * 100, rel=0.2), (
            "the horizon counts the jobs that there are"
        )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("simulate", "--rate", "-1"), "--rate"),
        (("simulate", "--rate", "nan"), "no number"),
        (("simulate", "-k", "4"), "proposers is 4"),
        (("theory", "-k", "4"), "4 devices have 3 peers"),
        (("theory", "--rate", "-1"), "--rate"),
        (("theory", "--rate", "nan"), "no number"),
        (("theory", "--load", "-1"), "--load"),
        (("theory", "--service", "gauss:1"), "no service-time law"),
        (("theory", "--service", "exp:nan"), "MEAN is 'nan'"),
        (("theory", "--skip-aggregation", "nan"), "no number"),
        (("theory", "-n", "3000000000", "--topology", "ring"), "more memory would be needed"),
        (("simulate", "--load", "nan"), "no number"),
        (("simulate", "--service", "lognormal:1:-1"), "CV is '-1'"),
        (("simulate", "--service", "trace:missing.csv"), "cannot be read"),
        (("simulate", "--service", "gauss:1"), "no service-time law"),
        (("simulate", "--service", "exp:1,exp:2"), "2 laws for 4 devices"),
        (("simulate", "--topology", "nowhere.txt"), "no file that can be read"),
        (("simulate", "--prompts", "5"), "--mode paper"),
        (("simulate", "--select", "best"), "best-of:D"),
        (("simulate", "--select", ""), "best-of:D"),
        (("simulate", "--select", "best-of:2+3"), "best-of:D"),
        (("simulate", "--select", "fixed:"), "fixed:N+N"),
        (("simulate", "--select", "fixed:1+a"), "fixed:N+N"),
        (("simulate", "--select", "fixed:1+4"), "no device 4; they are numbered 0 to 3"),
        (("simulate", "--select", "fixed:1+2+1"), "device 1 stands there twice"),
        (("simulate", "--select", "fixed:1"), "device 1 would have nobody to ask"),
        (("simulate", "--select", "fixed:1+2", "-k", "3"), "-k is 3, but --select names 2 peers"),
        (("simulate", "--select", "fixed:1+2", "--topology", "ring"), "give one of them"),
        (("simulate", "--select", "fixed:1+2", "--gossip"), "complete graph"),
        (("simulate", "--select", "fixed:1+2", "--quorum", "4"), "quorum is 4"),
        (
            ("simulate", "--load", "0.8", "--quorum", "2", "--stages", "1,3", "-M", "1"),
            "it is not known; give --rate",
        ),
        (("simulate", "--core", "--horizon", "1e9"), "more memory would be needed"),
        (("simulate", "--select", "fixed:1+2", "--view-age", "1"), "belongs to --select best-of"),
        (("simulate", "--select", "best-of:2"), "at least k = 3"),
        (("simulate", "--view-age", "1"), "belongs to --select"),
        (("simulate", "-n", "1000000000000"), "GB more memory would be needed"),
        (("simulate", "--select", "best-of:3", "--view-age", "nan"), "no number"),
        (("theory", "--select", "best"), "best-of:D"),
        (("theory", "--select", "best-of:2"), "at least k = 3"),
        (("theory", "--select", "fixed:1+4"), "no device 4; they are numbered 0 to 3"),
        (("plan", "--rate", "0.1", "--select", "fixed:1"), "device 1 would have nobody to ask"),
        (
            ("plan", "--rate", "0.1", "--select", "fixed:1+2", "--quorum", "4"),
            "a layer has 3 jobs here at most",
        ),
        (("theory", "--rate", "1", "--load", "1"), "the same thing"),
        (("simulate", "--mode", "paper", "--prompts", HUGE), "--prompts"),
        (("simulate", "--admit", HUGE), "--admit"),
        (("simulate", "--reps", HUGE), "--reps"),
        (("simulate", "--workers", HUGE), "--workers"),
        (("simulate", "-n", HUGE), "--devices"),
        (("simulate", "--quorum", HUGE), "--quorum"),
        (("validate", "--workers", HUGE), "--workers"),
        (("simulate", "--horizon", "1e-320"), "--horizon"),
        (("simulate", "--rate", "1e-320"), "--rate"),
        (("simulate", "--load", "1e-320"), "--load"),
        (("simulate", "--service", "exp:1e-320"), "MEAN is '1e-320'"),
        (("simulate", "--service", "exp:1e308"), "MEAN is '1e308'"),
        (("theory", "--topology", ""), "--topology is empty"),
        (("plan", "--rate", "0.1", "--quorum", "9"), "a layer has 4 jobs here at most"),
        (("plan", "--rate", "0.1", "--keep", "9"), "--keep 9: a layer has 4 jobs here at most"),
        (("plan", "--rate", "0.1", "--stop-chance", "0.5"), "belongs to --early-stop"),
        (("theory", "--keep", "5"), "keep is 5, but a layer has 4 answers (k + 1)"),
        (("theory", "--early-stop"), "with M = 1 and k = 3 a judge has nothing to say"),
        (("theory", "--stop-chance", "0.5"), "belongs to early_stop"),
        (("theory", "--keep", "2", "--quorum", "3", "--rate", "0.1"), "give one of them"),
        (("simulate", "--keep", "2"), "the compiled simulator has no judge"),
        (("simulate", "--service", "det:0", "--load", "0.5"), "takes time"),
        (("simulate", "-n", "1", "--topology", "ring", "-M", "1", "-k", "0"), ""),
    ],
)
def test_bad_input_is_one_clear_line(run, arguments, says):
    few = [] if arguments[0] != "simulate" else [
        each for name, value in (("--horizon", "50"), ("--reps", "2")) if name not in arguments for each in (name, value)
    ]  # fmt: skip
    code, _, err = run(*arguments, *few)
    if says:
        assert (code, err.count("\n")) == (2, 1)
        assert says in err
        assert err.startswith("folkmoot: ")
    else:
        assert code == 0


@pytest.mark.parametrize("command", ["theory", "simulate", "sweep"])
@pytest.mark.parametrize(
    ("graph", "says"),
    [
        ("1\n0\n2\n", "device 2 must name other devices"),
        ("1\n0\n\n", "device 2 may ask nobody"),
        ("1\n\n0\n", "device 1 may ask nobody"),
        ("1\n0\n", "the graph has 2 devices, but there are 3 rates"),
        ("1\n0\n3\n", "device 2 must name other devices"),
        ("1\n0\nx\n", "every line must hold the numbers"),
    ],
)
def test_a_graph_that_is_none(run, tmp_path: Path, command, graph, says):
    (tmp_path / "graph.txt").write_text(graph)
    out = ["--out", str(tmp_path / "s")] if command == "sweep" else []
    code, _, err = run(command, "-n", "3", "-k", "1", "--topology", str(tmp_path / "graph.txt"), *out)
    assert (code, err.count("\n"), says in err) == (2, 1, True), err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("command", ["theory", "simulate", "sweep"])
@pytest.mark.parametrize("hole", ["", "nan", "?"])
def test_a_trace_with_holes(run, tmp_path: Path, command, hole):
    (tmp_path / "trace.csv").write_text(f"a,b\n1,2\n3,{hole}\n")
    out = ["--out", str(tmp_path / "s")] if command == "sweep" else []
    code, _, err = run(command, "--service", f"trace:{tmp_path / 'trace.csv'}:a+b", *out)
    assert (code, err.count("\n"), "row 2 below the header" in err) == (2, 1, True), err


@pytest.mark.parametrize("command", ["theory", "simulate", "sweep", "plan"])
def test_who_has_which_column_of_a_trace_is_told(run, tmp_path: Path, command):
    (tmp_path / "trace.csv").write_text("id,a,b,c,d,e\nx,1,2,3,4,5\n")
    few = {"simulate": ("--horizon", "20", "--reps", "2"), "plan": ("--rate", "0.01", "--max-layers", "1")}
    few["sweep"] = (*few["simulate"], "--load", "0.5,0.6", "--plot", "none", "--out", str(tmp_path))
    for columns, says in (
        (
            "",
            "the trace's 5 columns are dealt to the devices in turn: 0 has a, 1 has b, 2 has c, 3 has d, ...; ",
        ),
        (":e+b", "the trace's 2 columns are dealt to the devices in turn: 0 has e, 1 has b; "),
        (":e", None),
    ):
        code, _, err = run(
            command, "--service", f"trace:{tmp_path / 'trace.csv'}{columns}", *few.get(command, ())
        )
        told = [line for line in err.splitlines() if " replications" not in line]
        more = "trace:FILE:A+B takes the columns A and B only"
        assert (code, told) == (0, [f"folkmoot: {says}{more}"] if says else [])


def test_without_the_extra_every_command_names_it(home):
    """In a process of its own, which finds none of its packages."""
    code = """
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        bare = name.partition(".")[0] in ("numpy", "scipy", "numba", "joblib", "matplotlib", "pyarrow")
        return None if bare else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
from folkmoot.cli import exits, group
from folkmoot.cli.cluster import cores

for asked in sys.stdin.read().splitlines():
    print(exits.run(lambda: group.main(asked.split(), standalone_mode=False), debug=False), asked)
"""
    commands = [
        "theory", "theory --topology ring", "simulate", "simulate --core", "simulate --delay 1", "simulate --slots 2",
        "sweep", "validate", "plan --rate 1", "plan --rate 1 --topology ring",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], input="\n".join(commands), capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [f"2 {each}" for each in commands], done.stderr
    remedy = "numpy, scipy, numba, joblib not installed; run: pip install 'folkmoot[sim]'"
    assert done.stderr.splitlines() == [f"folkmoot: {remedy}"] * len(commands)


def test_more_workers_than_cores_are_not_started_and_that_is_told(monkeypatch, capsys):
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    assert [cores(each, None) for each in (None, 2, 3)] == [None, 2, 3]
    assert cores(40, "10.0.0.1:6379") == 40
    assert capsys.readouterr().err == ""
    assert cores(100_000, None) == 3
    assert (
        capsys.readouterr().err == "folkmoot: --workers 100000: this machine has 3 cores; no more are used\n"
    )


def test_where_no_prompt_ended_it_is_said(run):
    code, out, _ = run("simulate", "-M", "8", "--load", "1000", "--reps", "2", "--horizon", "20")
    assert (code, "no prompt ended that is counted" in out, "nan" in out) == (0, True, False), out
    code, out, _ = run("simulate", "--service", "exp:1e12", "--reps", "2", "--horizon", "20")
    assert (code, "nan" in out, " s\n" in out) == (0, False, True), "beyond the bins no quantile is known"


def test_validate_finds_wrong_formulas(run, monkeypatch):
    """One that the compiled simulator checks and one that the real protocol does, among few others that are right."""
    right, grown = queueing.alone, queueing.stage_load
    monkeypatch.setattr(queueing, "alone", lambda rate, service: 1.05 * right(rate, service))
    monkeypatch.setattr(queueing, "stage_load", lambda *of: 1.05 * grown(*of))
    compiled, core = validate.cases()[:20], exact.cases()[:5]
    monkeypatch.setattr(validate, "cases", lambda beyond: compiled)
    monkeypatch.setattr(exact, "cases", lambda beyond: core)
    code, out, err = run("validate", "--quick", "--json")
    found = json.loads(out)
    assert code == 1
    wrong = [case["name"] for case in found["cases"] if case["verdict"] == "mismatch"]
    assert found["failed"] == len(wrong) >= 6
    assert wrong[-1] == "stages of 1, 1.5 and 2.5 s: load"
    assert all("M/G/1" in name and name.endswith("latency") for name in wrong[:-1])
    assert f"{len(wrong)} of 25 statements do not hold" in err


@pytest.mark.timeout(300)  # all statements at once: a busy machine takes minutes
def test_validate_passes(run):
    code, out, err = run("validate", "--quick")
    assert code == 0, out
    assert [line for line in err.splitlines() if " cases" not in line] == []
    count = len(validate.cases()) + len(exact.cases())
    assert out.count("\n") == count + 1
    assert out.endswith(f"{count} of {count} statements hold\n")
    assert all(line.startswith("ok") for line in out.splitlines()[:-1])


def test_plan_names_what_is_stable_and_the_best_under_a_deadline(run):
    code, out, err = run("plan", "-n", "6", "--rate", "0.1", "--deadline", "7", "--max-layers", "2", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert len(found["choices"]) == 1 + 2 * 6
    for row in found["choices"]:
        assert row["stable"] is (row["load"] < 1) is (row["latency"] is not None)
        assert row["load"] == pytest.approx(0.1 * ((row["proposers"] + 1) * row["layers"] + 1))
        assert row["limit_rate"] == pytest.approx(0.1 / row["load"])
    kept = [row for row in found["choices"] if row["stable"] and row["latency"] <= 7]
    assert found["best"]["proposals"] == max(row["proposals"] for row in kept)
    assert found["nearest"] is None
    assert run("plan", "--rate", "2")[1].splitlines()[-1] == (
        "not even M=0 is stable: lower the rate below 1 prompts/s and device, or take faster devices"
    )
    late = ("plan", "--rate", "0.3", "--max-layers", "1", "--service", "exp:1.234")
    out = run(*late, "--deadline", "0.1")[1].splitlines()
    assert out[0].startswith("M=0 k=0: load 0.370, limit 0.8104 prompts/s and device, expected latency 1.9")
    assert "M=0 k=0 comes nearest: give --deadline 1.96 or more" in out[-1]
    assert "<- best" in run(*late, "--deadline", "1.96")[1]
    assert json.loads(run(*late, "--deadline", "0.1", "--json")[1])["nearest"]["layers"] == 0
    assert run("plan")[0] == 2
    more = ("--quorum", "2", "--topology", "ring", "--skip-aggregation", "0.5", "--max-layers", "1", "--json")
    rows = json.loads(run("plan", "-n", "6", "--rate", "0.2", *more)[1])["choices"]
    assert [(row["proposers"], row["stable"], row["tag"]) for row in rows] == [
        (0, True, "E"), (1, True, "A"), (2, True, None),
    ]  # fmt: skip
    assert [row["load"] for row in rows] == [*map(pytest.approx, (0.2, 0.5)), None]
    assert "latency not known" in run("plan", "-n", "6", "--rate", "0.2", *more[:-1])[1]


def test_the_real_protocol_says_what_the_compiled_simulator_says(run):
    flags = ("simulate", "-n", "4", "-M", "1", "-k", "2", "--horizon", "60", "--reps", "2", "--json")
    compiled, core = (json.loads(run(*flags, *more)[1]) for more in ((), ("--core", "--workers", "1")))
    assert core["latency"]["mean"] == pytest.approx(compiled["latency"]["mean"])
    assert core["inferences"] == compiled["inferences"]
    assert sum(core["ends"].values()) > 0
    assert core["core"] is True


def test_the_real_protocol_has_a_shorter_horizon_of_its_own(run):
    one = ("simulate", "-n", "1", "-M", "0", "--reps", "1", "--workers", "1", "--json")
    for more, jobs in (((), HORIZON), (("--core",), CORE_HORIZON), (("--core", "--horizon", "100"), 100)):
        assert json.loads(run(*one, *more)[1])["inferences"] == pytest.approx(jobs, rel=0.3)


def test_slots_and_batching_go_to_the_real_protocol(run):
    flags = ("simulate", "-n", "3", "--horizon", "30", "--reps", "1", "--workers", "1", "--json")
    told = json.loads(run(*flags, "--slots", "2", "--batching", "1,1.5")[1])
    assert told["load"] == pytest.approx(0.8), "of both slots together"
    assert told["rate"] == pytest.approx(0.8 * 1.5 / 4)


def test_growing_prompts_and_early_stops_go_to_the_real_protocol(run):
    flags = (
        "simulate",
        "-n",
        "3",
        "-M",
        "2",
        "-k",
        "1",
        "--horizon",
        "10",
        "--reps",
        "2",
        "--workers",
        "1",
        "--json",
    )
    told = json.loads(run(*flags, "--stages", "1,2,4", "--stops", "0.5,0.5", "--aggregator", "fixed:2")[1])
    assert told["load"] == pytest.approx(0.8), "of the busiest device"
    assert told["rate"] == pytest.approx(0.8 / (2 * (1 + 0.5 * 2) + 3 * 4))
    assert told["theory"]["rho"] == pytest.approx([0.2, 0.2, 0.8])


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--mttf", "5"), "--mttf and --mttr go together"),
        (("--mttf", "5", "--mttr", "1"), "--gossip"),
        (("--batching", "1,x"), "--batching '1,x'"),
        (("--batching", ""), "--batching ''"),
        (
            ("--slots", "2", "--batching", "1,nan"),
            "speed is 1, nan; it has one number for each number of jobs in service, 2",
        ),
        (("--batching", "0"), "speed is 0; it has"),
        (("--batching", "1e-320"), "from 1e-06 to 1e+06"),
        (("--batching", "1e308"), "from 1e-06 to 1e+06"),
        (("--slots", "2", "--batching", "1,2,3"), "speed"),
        (("--gossip", "--topology", "ring"), "complete graph"),
        (("--core", "--skip-aggregation", "0.5"), "aggregates every prompt"),
        (("--core", "-n", "2000"), "too many"),
        (("--aggregator", "fixed:9"), "aggregator is 9; devices are numbered 0 to 3"),
        (("--aggregator", "best"), "--aggregator best"),
        (("--stages", "1,x"), "--stages '1,x'"),
        (("--stages", "1"), "stages has 1 factors; with M = 1 it has 2"),
        (("--stages", "1,0"), "stages has 0; its factors go from 1e-06"),
        (("--stops", ""), "--stops ''"),
        (("--stops", "0.5,0.5"), "stops has 2 chances; with M = 1"),
        (("-M", "2", "--stops", "0.5,0.6"), "stops sum to 1.1"),
    ],
)
def test_a_world_that_cannot_be_is_refused(run, more, why):
    code, out, err = run("simulate", "--horizon", "5", *more)
    assert (code, out) == (2, "")
    assert why in err
