"""What a delivery does when its log cannot be followed on at an unlucky moment."""

import asyncio

from gateway.api.exchange import Exchange, Receive, Scope, Send
from gateway.api.sse import Delivery, Pace, Shared
from gateway.dialects.openai_chat_render import StreamRenderer
from gateway.streams.journal import JournalLost
from tests.support.asgi import AsgiCall
from tests.support.run import run
from tests.unit.streams.world import World


def test_what_was_pushed_comes_before_the_error() -> None:
    """An entry that its client was too slow to be sent at once is not lost when the log fails in the same turn."""

    async def scenario() -> None:
        world = World()
        log = await world.log()
        await log.say("first ")
        reader = await log.reader()
        channel = await log.channel()
        (start,) = log.start.events
        renderer = Shared(StreamRenderer(start))  # type: ignore[arg-type]

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async with asyncio.TaskGroup() as tasks:
                exchange = Exchange(scope, receive, send)
                await Delivery(exchange, reader, renderer, world.clock, Pace()).run(list, tasks)

        async with AsgiCall(app, "POST", "/v1/chat/completions", json={}) as call:
            await call.start()
            assert b"first" in (await call.chunk() or b"")
            await asyncio.sleep(0)  # the delivery waits to be pushed to
            await log.say("second ")
            channel.fail(JournalLost("gone"))
            rest = await call.rest()
            assert rest.index(b"second") < rest.index(b'"error"')
        reader.detach()

    run(scenario())
