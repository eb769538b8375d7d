"""What the API really sends, held against its own document."""

from __future__ import annotations

import json
import re

import pytest

from folkmoot.api.faults import STATUS
from folkmoot.api.routes import ROUTES
from folkmoot.errors import JournalError, JournalFull, NodeError, Overloaded
from folkmoot.node.journal import Journal

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
ONE = "/v1/responses/{response}"
ASK = {"model": "moot", "messages": [{"role": "user", "content": "hi"}]}


def mistakes(value, schema, document, at="$"):
    """Where a value breaks a JSON Schema, as far as msgspec writes such schemas."""
    if "$ref" in schema:
        return mistakes(
            value, document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], document, at
        )
    if "anyOf" in schema:
        tried = [mistakes(value, each, document, at) for each in schema["anyOf"]]
        return [] if [] in tried else [f"{at}: none of {len(tried)} fits", *min(tried, key=len)]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is not in {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: {value!r} is not {schema['const']!r}")
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    if "type" in schema and (
        not isinstance(value, kinds[schema["type"]])
        or (isinstance(value, bool) and schema["type"] in ("integer", "number"))
    ):
        return [*found, f"{at}: {value!r} is no {schema['type']}"]
    if "minimum" in schema and value < schema["minimum"]:
        found.append(f"{at}: {value} < {schema['minimum']}")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{at}: {name} is missing" for name in schema.get("required", []) if name not in value]
        for name, each in value.items():
            if name in properties:
                found += mistakes(each, properties[name], document, f"{at}.{name}")
            elif isinstance(schema.get("additionalProperties"), dict):
                found += mistakes(each, schema["additionalProperties"], document, f"{at}.{name}")
            elif properties:
                found.append(f"{at}: {name} is not in the document")
    if isinstance(value, list):
        for index, each in enumerate(value):
            found += mistakes(each, schema.get("items", {}), document, f"{at}[{index}]")
    return found


def check(document, method, path, response):
    operation = document["paths"][path][method.lower()]
    said = operation["responses"][str(response.status_code)]["content"]
    media = response.headers["content-type"].partition(";")[0]
    schema = said[media]["schema"]
    if media == "text/event-stream":
        names = re.findall(r"^event: (.*)$", response.text, re.MULTILINE)
        data = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
        bodies = [json.loads(each) for each in data if each != "[DONE]"]
        assert bodies
        assert not names or path == RESPONSES
    else:
        bodies = [response.json()]
    for body in bodies:
        assert mistakes(body, schema, document) == []


async def test_every_route_is_in_the_document(client):
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {spec.path for spec in ROUTES} | {"/openapi.json"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["responses"], path


async def test_every_reference_leads_somewhere(client):
    text = (await client.get("/openapi.json")).text
    schemas = json.loads(text)["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) <= set(schemas)


@pytest.mark.parametrize(
    ("method", "path", "url", "more"),
    [
        ("GET", "/v1/models", "/v1/models", {}),
        ("GET", "/v1/models/{model}", "/v1/models/moot", {}),
        ("GET", "/v1/models/{model}", "/v1/models/none", {}),
        ("GET", "/v1/moot", "/v1/moot", {}),
        ("GET", "/v1/moot", "/v1/moot", {"headers": {"host": "evil.example"}}),
        ("GET", "/v1/moot/events", "/v1/moot/events?limit=22", {}),
        ("GET", "/v1/moot/events", "/v1/moot/events?limit=x", {}),
        ("GET", "/healthz", "/healthz", {}),
        ("POST", CHAT, CHAT, {"json": ASK}),
        ("POST", CHAT, CHAT, {"json": ASK | {"stream": True, "stream_options": {"include_usage": True}}}),
        ("POST", CHAT, CHAT, {"json": {}}),
        ("POST", CHAT, CHAT, {"json": ASK | {"model": "none"}}),
        ("POST", CHAT, CHAT, {"content": b"x" * (4 * 2**20 + 1)}),
        ("POST", RESPONSES, RESPONSES, {"json": {"model": "moot", "input": "hi"}}),
        ("POST", RESPONSES, RESPONSES, {"json": {"model": "moot", "input": "hi", "stream": True}}),
        ("POST", RESPONSES, RESPONSES, {"json": {"model": "moot", "input": "hi", "background": True}}),
        ("POST", RESPONSES, RESPONSES, {"json": {"model": "moot"}}),
        ("POST", RESPONSES, RESPONSES, {"json": {"model": "none", "input": "hi"}}),
        ("GET", ONE, "/v1/responses/resp_0", {}),
        ("DELETE", ONE, "/v1/responses/resp_0", {}),
        ("POST", ONE + "/cancel", "/v1/responses/resp_0/cancel", {}),
        ("POST", "/v1/moot/invitations", "/v1/moot/invitations", {"json": {}}),
        (
            "POST",
            "/v1/moot/invitations",
            "/v1/moot/invitations",
            {"json": {}, "headers": {"authorization": "Bearer owner-token"}},
        ),
    ],
)
async def test_answers_are_as_the_document_says(client, method, path, url, more):
    document = (await client.get("/openapi.json")).json()
    check(document, method, path, await client.request(method, url, **more))


@pytest.mark.parametrize("code", [code for code, status in STATUS.items() if status not in (401, 405, 507)])
async def test_failed_prompts_are_as_the_document_says(client, village, code):
    village.fail = code
    document = (await client.get("/openapi.json")).json()
    check(document, "POST", CHAT, await client.post(CHAT, json=ASK))


async def test_a_kept_response_is_as_the_document_says(client):
    document = (await client.get("/openapi.json")).json()
    told = (await client.post(RESPONSES, json={"model": "moot", "input": "hi"})).json()
    check(document, "GET", ONE, await client.get(f"/v1/responses/{told['id']}"))
    check(document, "POST", ONE + "/cancel", await client.post(f"/v1/responses/{told['id']}/cancel"))
    check(document, "DELETE", ONE, await client.delete(f"/v1/responses/{told['id']}"))


@pytest.mark.parametrize("kind", [JournalError, JournalFull, Overloaded])
async def test_a_journal_that_refuses_is_as_the_document_says(client, monkeypatch, kind):
    def refuse(*_):
        raise kind("no")

    document = (await client.get("/openapi.json")).json()
    monkeypatch.setattr(Journal, "accept", refuse)
    told = await client.post(RESPONSES, json={"model": "moot", "input": "hi", "background": True})
    check(document, "POST", RESPONSES, told)
    assert told.status_code == STATUS[kind.code]


async def test_a_device_that_cannot_go_on_is_as_the_document_says(client, village, control, monkeypatch):
    async def full(*_):
        raise NodeError("cannot write invitations.json: No space left on device")

    monkeypatch.setattr(village, "invite", full)
    path = "/v1/moot/invitations"
    document = (await client.get("/openapi.json")).json()
    told = await client.post(path, json={}, headers={"authorization": f"Bearer {control}"})
    check(document, "POST", path, told)
    assert told.json()["error"]["code"] == NodeError.code
    assert told.status_code == STATUS[NodeError.code]


@pytest.mark.parametrize("path", ["/v1/models/", "/v1/moot/", "/healthz/", "//"])
async def test_a_slash_too_many_is_no_redirect_of_which_the_document_does_not_know(client, path):
    got = await client.get(path)
    assert got.status_code == 404
    assert got.json()["error"]["code"] in ("not_found", "unknown_model")


async def test_a_wrong_method_is_told_all_that_are_right(client):
    document = (await client.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        got = await client.request("OPTIONS", path.replace("{", "").replace("}", ""))
        known = {method.upper() for method in operations}
        assert got.status_code == 405
        assert set(got.headers["allow"].split(", ")) - {"HEAD"} == known


async def test_keys_and_a_loading_engine_are_as_the_document_says(connect, village):
    client = connect(keys=("secret",))
    village.engine = "loading"
    document = (await client.get("/openapi.json")).json()
    check(document, "GET", "/healthz", await client.get("/healthz"))
    check(document, "GET", "/v1/moot", await client.get("/v1/moot"))


def test_the_checker_finds_mistakes():
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "minimum": 0}}}
    assert mistakes({"a": 1}, schema, {}) == []
    assert mistakes({}, schema, {}) != []
    assert mistakes({"a": -1}, schema, {}) != []
    assert mistakes({"a": True}, schema, {}) != []
    assert mistakes({"a": 1, "b": 2}, schema, {}) != []
