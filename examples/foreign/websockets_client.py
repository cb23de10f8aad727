"""The package `websockets` as a client: websockets_client.py http://127.0.0.1:PORT"""

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time

import websockets

WAIT = 10
passed = 0


def token(user, secret=b"test-secret"):
    def part(raw):
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    header = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    claims = part(json.dumps({"sub": user, "exp": int(time.time()) + 600}).encode())
    text = header + b"." + claims
    return (text + b"." + part(hmac.new(secret, text, hashlib.sha256).digest())).decode()


def check(name, holds, seen=None):
    global passed
    if not holds:
        sys.exit(f"not ok - python: {name}: got {seen!r}")
    passed += 1
    print(f"ok - python: {name}")


async def send(client, kind, payload=None, id=None):
    message = {"type": kind, "payload": payload, "id": id}
    await client.send(json.dumps({k: v for k, v in message.items() if v is not None}))


async def receive(client):
    return json.loads(await asyncio.wait_for(client.recv(), WAIT))


async def checks(base):
    url = base.replace("http", "ws", 1) + "/ws"
    bearer = {"Authorization": f"Bearer {token('ann')}"}
    offered = ["tidings.v1.json"]
    async with websockets.connect(
        url, additional_headers=bearer, subprotocols=offered, open_timeout=WAIT, close_timeout=WAIT
    ) as ann:
        hello = await receive(ann)
        check("connected comes first", hello["type"] == "connected", hello)
        check("a token in the header", hello["payload"]["userId"] == "ann", hello)
        check("the subprotocol is chosen", ann.subprotocol == "tidings.v1.json", ann.subprotocol)

        await send(ann, "join:room", {"roomId": "py"}, 1)
        joined = await receive(ann)
        check("joined", joined["type"] == "room:joined" and joined["id"] == 1, joined)

        cookie = {"Cookie": f"a=b; wsToken={token('bob')}"}
        async with websockets.connect(
            url + "?room=py", additional_headers=cookie, open_timeout=WAIT, close_timeout=WAIT
        ) as bob:
            hello = await receive(bob)
            check("a token in a cookie", hello["payload"]["userId"] == "bob", hello)
            check("joined by the URL", (await receive(bob))["type"] == "room:joined")
            await send(bob, "room:message", {"roomId": "py", "data": {"text": "grüße"}})
            for who, client in ("the sender", bob), ("another member", ann):
                heard = await receive(client)
                right = heard["type"] == "room:message" and heard["payload"] == {
                    "roomId": "py", "userId": "bob", "data": {"text": "grüße"}}
                check(f"{who} hears what was said", right, heard)

        await send(ann, "ping")
        check("ping, pong", (await receive(ann))["type"] == "pong")
        await asyncio.wait_for(await ann.ping(), WAIT)
        check("a ping frame is answered", True)
        await send(ann, "leave:room", {"roomId": "py"}, "bye")
        left = await receive(ann)
        check("left", left["type"] == "room:left" and left["id"] == "bye", left)
    check("closes in order", ann.close_code == 1000, ann.close_code)

    bad = f"{url}?token={token('ann', b'another-secret')}"
    async with websockets.connect(bad, open_timeout=WAIT, close_timeout=WAIT) as forged:
        try:
            check("a bad token gets nothing", False, await receive(forged))
        except websockets.ConnectionClosed:
            pass
    check("a bad token is closed with 1008", forged.close_code == 1008, forged.close_code)


asyncio.run(asyncio.wait_for(checks(sys.argv[1]), 90))
print(f"python: {passed} passed")
