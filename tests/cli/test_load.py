"""`folkmoot load`: its moments, what it counts, and one run on real devices."""

from __future__ import annotations

import asyncio
import json
import math

import pytest

from folkmoot.cli import exits, group
from folkmoot.cli.load import Asked, _beside, _Told, measured, told
from folkmoot.cli.open_loop import Driven, Look, Sent, answers, drive, poisson, written
from folkmoot.errors import ConfigError, NodeError

ASKED = [{"role": "user", "content": "hi"}]


def run(*arguments: str) -> int:
    return exits.run(lambda: group.main(["load", *arguments], standalone_mode=False), debug=False)


def test_the_moments_are_those_of_a_poisson_process_and_of_the_seed():
    moments = list(poisson(4, 2.0, 1_000.0, 1))
    assert moments == list(poisson(4, 2.0, 1_000.0, 1))
    assert moments != list(poisson(4, 2.0, 1_000.0, 2))
    assert len(moments) == pytest.approx(8_000, abs=4 * math.sqrt(8_000))
    gaps = [after - before for (before, _), (after, _) in zip(moments, moments[1:], strict=False)]
    assert sum(gap**2 for gap in gaps) / len(gaps) == pytest.approx(2 / 8**2, rel=0.1)
    for device in range(4):
        assert sum(each == device for _, each in moments) == pytest.approx(2_000, abs=4 * math.sqrt(2_000))


def test_a_late_client_hides_nothing():
    """Latency counts from the moment when the prompt was due."""
    assert Sent(0, 3.0, 10.0, "").latency_s == 7.0


def test_what_is_counted_is_what_came_after_the_warm_up():
    asked = Asked((), 2, (), 0.5, 10.0, 0.0, 1, 1, "lsf", "on", 1)
    sent = [
        Sent(0, 1.0, 2.5, "", 1, 1), Sent(1, 3.0, 5.0, "", 1, 1, first_wait_s=0.75), Sent(0, 4.0, 12.0, "", 1, 1),
        Sent(1, 5.0, 5.1, "overloaded"), Sent(0, 6.0, 7.0, "deadline"), Sent(1, 9.0),
    ]  # fmt: skip
    looks = [Look(at, device, int(at) * device, 1, 2.0) for at in range(11) for device in range(2)]
    found = measured(asked, ["ash", "birch"], Driven(sent, looks))
    assert (found["prompts"], found["answered"], found["refused"], found["open"]) == (6, 3, 1, 1)
    assert found["failed"] == {"deadline": 1}
    assert found["goodput"] == pytest.approx(2 / 8 / 2)  # one began before, one ended after
    assert found["latency"]["mean"] == 5.0
    assert found["longest_first_wait_s"] == 0.75
    assert found["queue_size"] == pytest.approx(3.0)
    assert found["drift"]["value"] == pytest.approx(0.5 * 2.0)  # one grows by 1 a second, the other not
    assert found["in_service"] == [1.0, 1.0]
    assert found["plans"] == [{"layers": 1, "proposers": 1, "prompts": 2}]
    assert (found["due"], found["went_in"]) == (5, [{"layers": 1, "answers": 1, "prompts": 2}])
    text = "\n".join(told(found | {"theory": None, "simulated": None}))
    assert "6 prompts in 10 s at 2 devices: 3 answered, 1 refused, 1 open at the end, 1 deadline" in text
    auto = told(found | {"theory": None, "simulated": None, "mode": "auto", "n": 1})
    assert "6 prompts in 10 s at 1 device: " in auto[0]
    assert auto[-1] == "chosen, of prompts that count (after the warm-up): M=1 k=1: 2"
    nothing = told(found | {"theory": None, "simulated": None, "mode": "auto", "plans": []})
    assert nothing[-1].endswith("(after the warm-up): none was answered")


def test_a_queue_grows_by_the_moments_when_it_was_seen():
    """A device whose API stood still was seen more seldom, not later or earlier."""
    asked = Asked((), 1, (), 0.5, 10.0, 0.0, 1, 1, "lsf", "on", 1)
    looks = [Look(at, 0, int(3 * at), 1, 1.0) for at in (0.0, 1.0, 5.0, 6.0, 9.0, 10.0)]
    found = measured(asked, ["ash"], Driven([Sent(0, 3.0, 5.0, "", 1, 1)], looks))
    assert found["drift"]["value"] == pytest.approx(3.0)


async def test_a_look_bears_the_moment_of_its_answer():
    """An API that stands still for 0.6 s: its first look bears that moment, and no more looks come than fit behind it."""
    free = asyncio.Event()

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            free.set()
        await free.wait()
        body = json.dumps({"members": [{"service_s": 1.0}], "queue": 2, "busy": 1, "busy_s": 0.0}).encode()
        length = f"content-length: {len(body)}\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\nconnection: close\r\n{length}\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        driven = await drive([url], "", [(0.6, 0)], {}, 1.0, 10.0)
    moments = [look.at for look in driven.looks]
    assert moments == sorted(moments)
    assert moments[0] >= 0.6
    assert len(moments) <= 3


def test_a_device_that_told_nothing_is_not_one_without_a_queue():
    asked = Asked((), 2, (), 0.5, 10.0, 0.0, 1, 1, "lsf", "on", 1)
    looks = [Look(at, 0, at, 1, 2.0) for at in range(11)]
    found = measured(asked, ["ash", "birch"], Driven([Sent(0, 3.0, 5.0, "", 1, 1)], looks))
    assert found["queue_size"] == pytest.approx(6.0)
    assert found["drift"]["value"] == pytest.approx(2.0)
    assert found["drifts"] == [pytest.approx(2.0), None]
    assert (found["in_service"], found["utilisation"]) == ([1.0, None], [0.0, None])


@pytest.mark.parametrize(
    ("layers", "proposers", "looks", "why"),
    [
        (None, 0, True, "in mode auto the moot chooses M and k for each prompt; give -M and -k"),
        (1, 2, True, "of 2 devices none can ask 2 others; name each of the moot's devices with --at"),
        (1, 1, False, "no device told how long a job takes; give --service"),
    ],
)
def test_why_there_is_nothing_beside_it_is_told(capsys, layers, proposers, looks, why):
    asked = Asked((), 2, (), 0.5, 10.0, 0.0, layers, proposers, "lsf", "on", 1)
    driven = Driven([], [Look(0.0, device, 0, 0, 2.0 * looks) for device in range(2)])
    assert _beside(asked, ["ash", "birch"], driven, None) == {"theory": None, "simulated": None}
    said = capsys.readouterr().err
    assert said.startswith(f"folkmoot: no theory and no simulation beside it: {why}")
    assert said.count("\n") == 1


async def test_how_far_it_is_is_told_to_the_end(serve, village, capsys):
    """Also while no more prompts come, and only what is open is waited for."""
    village.hold, heard = asyncio.Event(), []
    tell = _Told(Asked((), 1, (), 1.0, 0.3, 60.0, None, 0, "lsf", "on", 1))

    def hear(driven: Driven, now: float) -> None:
        tell(driven, now * 1_000.0)
        heard.append(now)
        if now > 0.3:
            village.hold.set()

    driven = await drive(
        [await serve()], "", [(0.0, 0)], {"model": "moot", "messages": ASKED}, 0.3, 60.0, hear
    )
    assert driven.sent[0].code == ""
    assert heard[-1] > 0.3
    assert "1 prompts, 0 answered, 0 refused; 1 open, waited for 0 s more at most" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (["--rate", "0"], "0"),
        (["--rate", "nan"], "nan"),
        (["--rate", "1", "--start", "2", "--at", "http://127.0.0.1:1"], "give one of them"),
        (["--rate", "1", "--engine", "timed:det:0"], "--engine belongs to --start"),
        (["--rate", "1", "--key-file", "key"], "belongs to --at"),
        (["--rate", "1", "--at", "http://127.0.0.1:1", "--key-file", "nowhere"], "cannot be read"),
        (["--rate", "1", "-k", "2"], "needs a layer"),
        (["--rate", "1", "--plot", "a.txt"], "it ends in"),
        (["--rate", "1", "--plot", "nowhere/a.png"], "there is no folder nowhere"),
        ([], "--rate or --arrivals"),
        (["--rate", "1", "--arrivals", "moments.csv"], "one of them"),
        (["--arrivals", "nowhere.csv"], "cannot be read"),
        (["--rate", "1", "--select", "best-of:2"], "needs a layer"),
        (["--rate", "1", "--select", "fixed:1"], "uniform or best-of:D"),
        (["--rate", "1", "--service", "exp:-1"], "-1"),
        (["--rate", "1", "-M", "1", "-k", "5", "--start", "2"], "5"),
    ],
)
def test_wrong_usage_is_2(capsys, wrong, why):
    assert run(*wrong) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert why in said.err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a", "line 1"),
        ("1\n0.5", "line 2"),
        ("1,7", "0 to 1"),
        ("-1", "line 1"),
        ("nan", "line 1"),
        (" \n", "empty"),
    ],
)
def test_moments_that_are_none_are_wrong_usage(tmp_path, text, why):
    file = tmp_path / "moments.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=why):
        written(file, 2, 1)


def test_moments_from_a_file_are_those_that_are_written(tmp_path):
    file = tmp_path / "moments.csv"
    file.write_text("0.5,1\n0.5,0\n\n2\n")
    moments = written(file, 2, 1)
    assert moments[:2] == [(0.5, 1), (0.5, 0)]
    assert moments[2][0] == 2.0
    assert moments == written(file, 2, 1)


def test_nobody_there_is_1(capsys):
    assert run("--rate", "20", "--seconds", "1", "--drain", "0", "--at", "http://127.0.0.1:9") == 1
    said = capsys.readouterr().err
    assert "no device answers at http://127.0.0.1:9; start one with `folkmoot up`" in said
    assert said.count("\n") == 1, "it knocks before it loads"


async def test_a_device_that_has_keys_is_loaded_with_one(serve):
    url = await serve(keys=("fm-secret-of-nobody",))
    with pytest.raises(NodeError, match="--key-file"):
        await answers(url, "")
    with pytest.raises(NodeError, match="take another one"):
        await answers(url, "fm-another")
    assert await answers(url, "fm-secret-of-nobody")
    body = {"model": "moot", "messages": [{"role": "user", "content": "hi"}]}
    driven = await drive([url], "fm-secret-of-nobody", [(0.0, 0)], body, 0.3, 10.0)
    assert [sent.code for sent in driven.sent] == [""]
    assert driven.looks


@pytest.mark.parametrize("text", ["", "two words", "fm-\nfm-", "é"])
def test_a_key_file_holds_one_key(tmp_path, capsys, text):
    file = tmp_path / "key"
    file.write_text(text)
    assert run("--rate", "1", "--at", "http://127.0.0.1:9", "--key-file", str(file)) == 2
    assert "--key-file" in capsys.readouterr().err


@pytest.mark.live
def test_live_devices_do_what_the_simulator_says(capsys, tmp_path):
    """Two devices well below the limit: all is answered, and the plot is drawn."""
    plot = tmp_path / "load.png"
    assert run(
        "--rate", "2", "-M", "1", "-k", "1", "--start", "2", "--engine", "timed:exp:0.02", "--seconds", "4",
        "--drain", "5", "--json", "--plot", str(plot),
    ) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["answered"] == found["prompts"] > 0
    assert (found["refused"], found["open"], found["failed"]) == (0, 0, {})
    assert found["theory"]["load"] == pytest.approx(2 * found["service_s"] * 3, rel=0.5)
    assert found["simulated"]["latency"]["mean"] > 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert all(0 < each < 1.2 for each in found["utilisation"])


@pytest.mark.live
def test_ctrl_c_while_it_simulates_keeps_what_was_measured(capsys, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("folkmoot.queueing.moot.replications", interrupt)
    flags = ("--rate", "4", "-M", "0", "--start", "1", "--engine", "timed:det:0.01", "--seconds", "1")
    assert run(*flags, "--json") == 130
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["answered"] > 0
    assert (found["theory"], found["simulated"]) == (None, None)
    assert said.err.endswith("folkmoot: interrupted: the result is without theory and simulation\n")


@pytest.mark.live
def test_moments_from_a_file_are_asked_live(capsys, tmp_path):
    file = tmp_path / "moments.csv"
    file.write_text("".join(f"{0.2 * number:.1f},{number % 2}\n" for number in range(6)))
    assert run(
        "--arrivals", str(file), "-M", "1", "-k", "1", "--select", "best-of:1", "--start", "2", "--engine", "timed:det:0.01",
        "--drain", "5", "--json",
    ) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["prompts"], found["answered"], found["select"]) == (5, 5, "best-of:1"), (
        "the last one marks the end"
    )
    assert found["seconds"] == 1.0
