"""Budgets that replicas share, in Redis: one script a step, on one lane; nothing is kept here but the connection.

    atlas:bud:{tenant}:<budget>   hash   w: the window's start; s: spent; h:<rid>, x:<rid>: what a replica holds, until
    atlas:bud:{tenant}:@<rid>     hash   the newest answers to a replica, by number modulo 1024

The braces are a hash tag: all budgets of a tenant are one slot of a cluster, so one step can move several of them.

Oddities, on purpose:
1. The time is Redis' own, so that replicas with different clocks agree on windows and leases.
2. What a dead replica holds is free again without anybody's doing: whoever comes next does not count it.
3. A lane repeats at most what was in its last pipeline, so 1,024 answers are more than can be asked for again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.pool.ledger import Answer, Denial, Grant, LedgerUnavailable
from gateway.upstream.link_redis import LinkDown, LinkRefused, Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.pool.budget import Budget
    from gateway.pool.ledger import Ask
    from gateway.upstream.resp import Reply

NOW = "local t = redis.call('TIME'); return t[1] * 1000 + math.floor(t[2] / 1000)"
"""Milliseconds since the Unix epoch; tests put another text in its place."""

ANSWERS_KEPT_MS = 600_000

_PRELUDE = """#!lua
local function now() $NOW end
local function whole(number) return string.format('%.0f', number) end
local SPANS = {minute = 60, hour = 3600, day = 86400}
-- days from the civil calendar, Howard Hinnant, chrono-compatible low-level date algorithms
local function month(s)
  local day = math.floor(s / 86400)
  local doe = (day + 719468) % 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  return (day - (doy - math.floor((153 * mp + 2) / 5))) * 86400
end
local function window(per, at)
  local s, span = math.floor(at / 1000), SPANS[per]
  if span then return s - s % span, s - s % span + span end
  if per ~= 'month' then return 0, 0 end
  return month(s), month(month(s) + 32 * 86400)
end
-- one budget as it stands: window, end, spent, what I hold, what others hold, fields to take out
local function account(key, per, rid, at)
  local start, stop = window(per, at)
  local fields = redis.call('HGETALL', key)
  local a = {start = start, stop = stop, spent = 0, mine = 0, others = 0, gone = {}}
  local held, until_ = {}, {}
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    local kind = string.sub(name, 1, 2)
    if name == 'w' then a.known = tonumber(value)
    elseif name == 's' then a.spent = tonumber(value)
    elseif kind == 'h:' then held[string.sub(name, 3)] = tonumber(value)
    elseif kind == 'x:' then until_[string.sub(name, 3)] = tonumber(value) end
  end
  local stale = a.known and a.known < start
  if stale then a.spent = 0 end
  for who, amount in pairs(held) do
    if stale or until_[who] <= at then a.gone[#a.gone + 1] = 'h:' .. who; a.gone[#a.gone + 1] = 'x:' .. who
    elseif who == rid then a.mine = amount
    else a.others = a.others + amount end
  end
  return a
end
local function write(key, a, rid, until_, kept)
  if #a.gone > 0 then redis.call('HDEL', key, unpack(a.gone)) end
  redis.call('HSET', key, 'w', whole(a.start), 's', whole(a.spent))
  if a.mine > 0 then redis.call('HSET', key, 'h:' .. rid, whole(a.mine), 'x:' .. rid, whole(until_))
  else redis.call('HDEL', key, 'h:' .. rid, 'x:' .. rid) end
  redis.call('PEXPIRE', key, kept)
end
"""

# KEYS: answers, a budget each. rid, number, lease, kept for answers; for each budget per, limit, kept, window, held,
# spent, need, block -> [granted, window, amount, left, reset, ...] | [denied, which, left, reset]
_MOVE = """
local rid, number, at = ARGV[1], ARGV[2], now()
local slot = tostring(tonumber(number) % 1024)
if number ~= '0' then
  local known = redis.call('HGET', KEYS[1], slot)
  if known then
    known = cmsgpack.unpack(known)
    if known[1] == number then return known[2] end
  end
end
local accounts, answer = {}, {'granted'}
for i = 2, #KEYS do
  local n = 5 + (i - 2) * 8
  local a = account(KEYS[i], ARGV[n], rid, at)
  local need, left = tonumber(ARGV[n + 6]), tonumber(ARGV[n + 1]) - a.spent - a.mine - a.others
  if need > 0 and left < need and answer[1] ~= 'denied' then
    answer = {'denied', i - 2, math.max(left, 0), a.stop}
  end
  accounts[i] = a
end
if answer[1] ~= 'denied' then
  for i = 2, #KEYS do
    local n, a = 5 + (i - 2) * 8, accounts[i]
    local limit, kept, from, held, spent, need, block = tonumber(ARGV[n + 1]), ARGV[n + 2], tonumber(ARGV[n + 3]),
      tonumber(ARGV[n + 4]), tonumber(ARGV[n + 5]), tonumber(ARGV[n + 6]), tonumber(ARGV[n + 7])
    if from == a.start then
      a.mine = math.max(a.mine - held, 0)
      a.spent = math.max(a.spent + spent, 0)
    else
      a.spent = a.spent + math.max(spent - held, 0)
    end
    local free, amount = limit - a.spent - a.mine - a.others, 0
    if free >= need then
      local rest = math.max(free - need, 0)
      amount = need + math.min(block, rest, math.max(math.floor(rest / 4), math.floor(block / 32), 1))
    end
    a.mine = a.mine + amount
    write(KEYS[i], a, rid, at + tonumber(ARGV[3]), kept)
    for _, value in ipairs({a.start, amount, math.max(free - amount, 0), a.stop}) do answer[#answer + 1] = value end
  end
end
if number ~= '0' then
  redis.call('HSET', KEYS[1], slot, cmsgpack.pack({number, answer}))
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return answer
"""

# KEYS: a budget each. rid, lease; for each budget per, kept, window, amount
_RENEW = """
local rid, at = ARGV[1], now()
for i = 1, #KEYS do
  local n = 3 + (i - 1) * 4
  local a = account(KEYS[i], ARGV[n], rid, at)
  if tonumber(ARGV[n + 2]) == a.start then
    if a.mine == 0 then a.mine = tonumber(ARGV[n + 3]) end
    write(KEYS[i], a, rid, at + tonumber(ARGV[2]), ARGV[n + 1])
  end
end
return 0
"""

# KEYS: a budget. per -> [spent, held]
_SPENT = """
local a = account(KEYS[1], ARGV[1], '', now())
return {a.spent, a.others}
"""


class Lane(Protocol):
    """What asks scripts for many tasks: `upstream.lane_redis.Lane`, or lanes to the nodes of a cluster."""

    async def call(self, script: Script, keys: list[str], *arguments: bytes | str | float) -> Reply:
        """What an idempotent script returns."""
        ...

    async def run(self) -> None:
        """Send and answer, until cancelled."""
        ...


class Scripts:
    """All of them; `now` is the text that tells the time."""

    def __init__(self, now: str = NOW) -> None:
        prelude = _PRELUDE.replace("$NOW", now)
        self.move, self.renew, self.spent = (Script(prelude + body) for body in (_MOVE, _RENEW, _SPENT))

    def all(self) -> list[Script]:
        """What is loaded with every connection."""
        return [self.move, self.renew, self.spent]


class RedisLedger:
    """See `ledger.Ledger`. The lane is the ledger's own: who builds it adds the scripts to its link."""

    def __init__(self, lane: Lane, *, lease_s: float = 6.0, scripts: Scripts | None = None) -> None:
        self._lane, self.lease_s = lane, lease_s
        self.scripts = scripts or Scripts()

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._lane.run()

    async def move(self, rid: str, number: int, asks: Sequence[Ask]) -> Answer:
        """Give back, spend and reserve."""
        tenant = asks[0].budget.tenant
        keys = [f"atlas:bud:{{{tenant}}}:@{rid}", *(key_of(ask.budget) for ask in asks)]
        rows: list[str | float] = []
        for budget, *amounts in asks:
            rows += [budget.per, budget.limit, budget.kept_s * 1000, *amounts]
        reply = await self._call(self.scripts.move, keys, rid, number, self._lease_ms, ANSWERS_KEPT_MS, *rows)
        if reply[0] == b"denied":
            return Denial(asks[reply[1]].budget, reply[2], reply[3])
        return [Grant(*reply[at : at + 4]) for at in range(1, len(reply), 4)]

    async def renew(self, rid: str, held: Sequence[tuple[Budget, int, int]]) -> None:
        """The replica lives; one call for each tenant."""
        tenants: dict[str, list[tuple[Budget, int, int]]] = {}
        for row in held:
            tenants.setdefault(row[0].tenant, []).append(row)
        for rows in tenants.values():
            amounts: list[str | float] = []
            for budget, window, amount in rows:
                amounts += [budget.per, budget.kept_s * 1000, window, amount]
            await self._call(self.scripts.renew, [key_of(row[0]) for row in rows], rid, self._lease_ms, *amounts)

    async def spent(self, budget: Budget) -> tuple[int, int]:
        """Spent and held."""
        spent, held = await self._call(self.scripts.spent, [key_of(budget)], budget.per)
        return spent, held

    @property
    def _lease_ms(self) -> int:
        return int(self.lease_s * 1000)

    async def _call(self, script: Script, keys: list[str], *arguments: str | float) -> Reply:
        try:
            return await self._lane.call(script, keys, *arguments)
        except (LinkDown, LinkRefused) as error:
            msg = f"the budgets' Redis takes nothing ({error})"
            raise LedgerUnavailable(msg) from error


def key_of(budget: Budget) -> str:
    """Where a budget lies."""
    return f"atlas:bud:{{{budget.tenant}}}:{budget.name}"
