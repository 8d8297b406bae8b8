"""Clients that ask one streamed answer after the other, in the background, and look whether each is whole."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

PROMPT = [{"role": "user", "content": "Tell me about bridges."}]
MODEL = "mock"
"""Four seconds an answer, whose text depends on model and prompt alone: two whole ones are the same."""
ANSWER_S = 30.0
PAUSE_S = 0.2


@dataclass
class Load:
    """So many clients of one address. `seen` counts how answers ended, `texts` has digests of what looked whole."""

    url: str
    clients: int = 12
    seen: Counter[str] = field(default_factory=Counter[str])
    texts: set[str] = field(default_factory=set[str])
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator["Load"]:
        """They ask while this is entered; leaving waits for the answers that are under way."""
        threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(self.clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join(ANSWER_S)

    def _ask_on(self) -> None:
        with httpx.Client(timeout=ANSWER_S, trust_env=False) as client:
            while not self._over.wait(PAUSE_S):
                try:
                    self.seen[self._asked(client)] += 1
                except httpx.TransportError:
                    self.seen["broken off"] += 1

    def _asked(self, client: httpx.Client) -> str:
        """One answer, and how it ended."""
        body = {"model": MODEL, "stream": True, "messages": PROMPT}
        with client.stream("POST", f"{self.url}/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                return f"refused with {answer.status_code}"
            frames = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
        if frames[-1:] != ["[DONE]"]:
            return "ended with an error"
        chunks = [json.loads(frame) for frame in frames[:-1]]
        text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        self.texts.add(hashlib.sha256(text.encode()).hexdigest())
        return "whole"
