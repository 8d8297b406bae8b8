"""Images in an answer of OpenAI's wire, in words for a dialect whose answers cannot hold one. Pure.

OpenRouter and others send them beside the text as `images`, most of them as base64. An image that stands in the web is
named by its address. The bytes of any other would come back as text with each later turn, so its reader is told where
they are: in the stream's log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from gateway.core.ids import show_sid

if TYPE_CHECKING:
    from gateway.core.events import Extra

_MAX_ADDRESS = 2048


def in_words(event: Extra, sid: str) -> str:
    """What a reader of text is told of the images of one event of the stream `sid`; nothing if it has none."""
    delta = event.patch.get("delta")
    images: Any = cast("dict[str, Any]", delta).get("images") if isinstance(delta, dict) else None
    return "\n".join(_image(each, sid) for each in images) if isinstance(images, list) else ""


def _image(image: Any, sid: str) -> str:
    match image:
        case {"image_url": {"url": str(url)}} if url.startswith(("https://", "http://")) and len(url) <= _MAX_ADDRESS:
            return f"![image]({url})"
        case _:
            return f"[image: it cannot be shown here; its bytes are at /v1/streams/{show_sid(sid)}/events]"
