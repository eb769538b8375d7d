from __future__ import annotations

import json
from dataclasses import replace

import pytest

from folkmoot.core.gossip import Standing


async def test_models_list_what_can_be_asked(client, village, make_member):
    village.members.append(make_member("e", "requester", model=""))
    village.members.append(make_member("f", "fir", standing=Standing.DEAD))
    listed = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
    assert listed == [
        *("moot", "moot-M1-k1", "moot-M1-k3", "moot-M2-k2", "local"),
        *("moot-fast", "moot-best", "moot-private"),
        *("ash", "birch", "cedar", "elm"),
    ]
    for name in listed:
        assert (await client.get(f"/v1/models/{name}")).json()["id"] == name
    assert (await client.get("/v1/models/fir")).status_code == 404


async def test_devices_of_one_name_are_told_apart(client, village, make_member):
    village.members.append(make_member("e", "birch"))
    listed = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
    assert "birch" not in listed
    assert listed[-4:] == ["birch~bbbbbb", "cedar", "elm", "birch~eeeeee"]


async def test_the_moot_as_this_device_sees_it(client):
    found = (await client.get("/v1/moot")).json()
    assert found["name"] == "ash"
    assert found["engine"] == "ready"
    assert [row["name"] for row in found["members"]] == ["ash", "birch", "cedar", "elm"]
    assert found["members"][0]["standing"] == "alive"
    assert found["members"][0]["service_s"] == 2.0
    assert found["members"][0]["stage_s"] == {"propose": 1.5, "refine": None, "aggregate": 3.0}


async def test_what_probes_say_of_a_model(client, village):
    me = village.members[0]
    village.members[0] = replace(
        me, card=replace(me.card, probes=7, right=(9, 0, 0, 0, 0, 5), total=(12, 8, 0, 0, 0, 7))
    )
    found = (await client.get("/v1/moot")).json()["members"]
    assert found[0]["skills"] == [
        {"skill": "arithmetic", "right": 9, "total": 12},
        {"skill": "extraction", "right": 0, "total": 8},
        {"skill": "open", "right": 5, "total": 7},
    ]
    assert found[1]["skills"] == []


@pytest.mark.parametrize(
    ("engine", "others", "status"),
    [
        ("ready", False, 200),
        ("none", True, 200),
        ("none", False, 503),
        ("loading", True, 503),
        ("down", True, 200),
        ("down", False, 503),
    ],
)
async def test_health(client, village, engine, others, status):
    village.engine = engine
    if not others:
        del village.members[1:]
    response = await client.get("/healthz")
    assert response.status_code == status
    assert response.json() == {"status": "ready" if status == 200 else engine}


async def test_events_tell_how_and_not_what(client):
    response = await client.get("/v1/moot/events?limit=22")
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    assert len(events) == 22
    assert events[0]["type"] == "member"
    assert {event["type"] for event in events} >= {"member", "accepted", "job", "wrote", "answered"}
    assert "blue" not in response.text


@pytest.mark.parametrize("limit", ["9" * 5_000, "0", "-1", "x", "1.5", ""])
async def test_a_wrong_limit_is_400(client, limit):
    response = await client.get(f"/v1/moot/events?limit={limit}")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "limit"


async def test_the_owner_invites(client, village, control):
    path, owner = "/v1/moot/invitations", {"authorization": f"Bearer {control}"}
    response = await client.post(path, json={"uses": 3, "ttl_s": 60, "delegate": True}, headers=owner)
    assert response.status_code == 201
    assert response.json() == {"invitation": "invitation-3-60-True"}
    assert (await client.post(path, headers=owner)).json() == {"invitation": "invitation-1-86400-False"}
    assert (await client.post(path, json={})).status_code == 403
    assert (await client.post(path, json={}, headers={"authorization": "Bearer x"})).status_code == 403
    assert (await client.post(path, json={"uses": 0}, headers=owner)).json()["error"]["param"] == "uses"
    village.may_invite = False
    refused = await client.post(path, json={}, headers=owner)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "admission")


async def test_a_key_is_not_the_owner(connect, control):
    client = connect(keys=("secret",))
    path = "/v1/moot/invitations"
    assert (await client.post(path, json={}, headers={"authorization": "Bearer secret"})).status_code == 403
    assert (
        await client.post(path, json={}, headers={"authorization": f"Bearer {control}"})
    ).status_code == 201


async def test_unknown_paths_and_wrong_methods_are_error_objects(client):
    missing = await client.get("/v1/nothing")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    wrong = await client.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "wrong_method")
    assert wrong.headers["allow"] == "POST"


async def test_a_bug_is_a_500_without_its_text(client, village):
    village.members = []
    response = await client.get("/v1/moot")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
    assert "IndexError" not in response.text


async def test_bans_and_a_new_root_key_are_for_the_owner_alone(client, village, control):
    owner = {"authorization": f"Bearer {control}"}
    for path, body, told in (
        ("/v1/moot/bans", {"device": "birch"}, {"device": "b" * 64}),
        ("/v1/moot/rotations", {"grace_s": 60}, {"until": 1_060}),
    ):
        refused = await client.post(path, json=body)
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "admission"
        done = await client.post(path, json=body, headers=owner)
        assert done.status_code == 201
        assert done.json() == told
        wrong = await client.post(path, json={key: -1 for key in body}, headers=owner)
        assert wrong.status_code == 400
    village.may_invite = False
    assert (await client.post("/v1/moot/bans", json={"device": "birch"}, headers=owner)).status_code == 403


async def test_everything_is_forgotten_for_the_owner_alone(client, control):
    body = {"model": "moot", "input": "hello"}
    name = (await client.post("/v1/responses", json=body)).json()["id"]
    assert (await client.delete("/v1/responses")).status_code == 403
    assert (await client.get(f"/v1/responses/{name}")).status_code == 200
    done = await client.delete("/v1/responses", headers={"authorization": f"Bearer {control}"})
    assert (done.status_code, done.json()) == (200, {"forgotten": 1})
    assert (await client.get(f"/v1/responses/{name}")).status_code == 404
