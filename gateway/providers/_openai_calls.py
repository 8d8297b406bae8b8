"""Fragments of tool calls, as OpenAI-compatible hosts send them -> fragments of the calls that they belong to. Sans-IO.

Oddities, on purpose:
1. A new `id` with a name begins a call, whatever its index: several vendors send index 0 for every parallel call.
2. A new `id` without a name begins none where the index is known: some hosts give each fragment an id of its own.
3. Hosts without ids send parallel calls whole, all of them as index 0: a name behind whole arguments begins another
   call there. Clients answer by the id, so that one is made of what was said: the same stream gives the same ids.
4. A call whose name is not known waits for it, at most until the answer's finish: nobody can run it before.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import msgspec

from gateway.core.events import ToolCall

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode


@dataclass(slots=True)
class _Call:
    """`said`: the arguments so far."""

    number: int
    id: str | None
    name: str | None = None
    said: list[str] = field(default_factory=list)

    @property
    def is_cut(self) -> bool:
        """Whether its arguments are neither empty nor JSON."""
        said = "".join(self.said)
        try:
            if said.strip():
                _decode_raw(said)
        except (msgspec.MsgspecError, RecursionError):
            return True
        return False

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are an object already. Decoding those of each of many fragments would take seconds."""
        last = next((part for part in map(str.rstrip, reversed(self.said)) if part), "")
        if not last.endswith("}"):
            return False
        try:
            _decode_object("".join(self.said))
        except msgspec.MsgspecError:
            return False
        return True


class Calls:
    """The tool calls of one choice, numbered densely. `seed` is the answer's own id."""

    __slots__ = ("_by_id", "_by_index", "_choice", "_count", "_seed")

    def __init__(self, choice: int, seed: str) -> None:
        self._choice, self._seed = choice, seed
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}
        self._count = 0

    def take(self, index: int, call_id: str | None, name: str | None, arguments: str) -> tuple[int, ToolCall | None]:
        """The number of the call that a fragment belongs to, and what there is to say of it now."""
        call = self._by_id.get(call_id) if call_id else None
        call = call or self._continued(index, call_id, name) or self._begun(index, call_id)
        if call_id:
            self._by_id[call_id] = call
        if arguments:
            call.said.append(arguments)
        if call.name is None:
            return call.number, None if name is None else self._named(call, name)
        return call.number, ToolCall(self._choice, call.number, arguments) if arguments else None

    @property
    def is_cut(self) -> bool:
        """Whether the answer, should it end here, ends within a call."""
        return any(call.is_cut for call in self._by_index.values())

    def rest(self) -> list[ToolCall]:
        """What still waits for a name when the answer is over."""
        waiting = [call for call in self._by_index.values() if call.name is None]
        return [self._named(call, None) for call in waiting]

    def _continued(self, index: int, call_id: str | None, name: str | None) -> _Call | None:
        """The call that a fragment without a known id goes on with; None: it begins one."""
        held = self._by_index.get(index)
        if held is None or name is None or held.name is None:
            return held
        return None if call_id is not None or (held.id is None and held.is_whole) else held

    def _begun(self, index: int, call_id: str | None) -> _Call:
        call = self._by_index[index] = _Call(self._count, call_id)
        self._count += 1
        return call

    def _named(self, call: _Call, name: str | None) -> ToolCall:
        """The first that is said of a call."""
        call.name, arguments = name or "", "".join(call.said)
        made = f"{self._seed} {self._choice} {name} {arguments}".encode("utf-8", "replace")
        call_id = call.id or f"call_{zlib.crc32(made):08x}_{call.number}"
        return ToolCall(self._choice, call.number, arguments, call_id, name)
