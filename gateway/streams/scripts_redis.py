"""The atomic steps of the Redis journal, as Lua. Each touches the keys of one stream, which share a slot.

What an operation comes to in a state is not said again here: `lifecycle.TABLE` is written into the text. What a change
*does* is, in `STEP`; a property test holds it to `lifecycle.apply`.

Oddities, on purpose:
1. The time is Redis' own, so that replicas with different clocks agree on gens and on how old an operation id is.
2. A change that appends nothing moves the log's last id all the same (XSETID): the id is the fence.
3. `gens` lists where each gen begins: [seq, gen, seq, gen, ...]. Ids are `<gen>-<seq>`, so it finds a seq in the log.
4. A repeated operation id is answered with what it did. If it is the very same call whose reply was lost (same nonce),
   the entries come along once more, because its caller has not seen them.
5. Entry 0 has the field of plain entries: Redis keeps the name of a node's first field once for all that share it.
6. Control goes through where Redis is out of memory (allow-oom), appends and new streams do not.
7. A short log is copied when it ends: Redis keeps room for 4 KiB more of a stream, and the copy has none. Of 300 tokens
   that is a quarter, for as long as ended logs live.
8. A deleted stream's record and log are renamed, so that nothing but `read` finds them; the record stays a little
   longer than any call lasts, so that a late copy of its `create` does not bring it back.
"""

from __future__ import annotations

from gateway.core.events import TERMINAL
from gateway.streams.lifecycle import _OF_OWNERS, OPERATIONS_KEPT, OPERATIONS_KEPT_S, TABLE
from gateway.upstream.link_redis import Script

FIELDS = (
    "about", "state", "gen", "owner", "pause_seq", "paused_since", "skip", "kept", "end", "ended", "operations"
)  # fmt: skip
"""What a record is made of, in the order in which scripts return it."""

SHORT_ENTRIES = 512
"""A log of more entries is left as it is when it ends: copying it would take longer, and gain nothing."""

NOW = "local t = redis.call('TIME'); return t[1] * 1000 + math.floor(t[2] / 1000)"
"""Milliseconds since the Unix epoch; tests put another text in its place."""

_PRELUDE = """#!lua flags=allow-oom
local m, j, u, request = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local function now() $NOW end
local function record() return redis.call('HMGET', m, $FIELDS) end
local function whole(number) return string.format('%.0f', number) end
local function tail_of_log()
  local last = redis.call('XREVRANGE', j, '+', '-', 'COUNT', 1)[1]
  return last and tonumber(string.match(last[1], '%-(%d+)$'))
end
local function live(log_ms, record_ms)
  redis.call('PEXPIRE', j, log_ms)
  redis.call('PEXPIRE', request, log_ms)
  redis.call('PEXPIRE', m, log_ms + record_ms)
  redis.call('PEXPIRE', u, log_ms + record_ms)
end
"""

# owner, gen, payload, ttl_live, ttl_record, request, field, value ... -> created | again | taken
_CREATE = """
local known = redis.call('HMGET', m, 'owner', 'gen')
if known[1] then return (known[1] == ARGV[1] and redis.call('EXISTS', j) == 1) and 'again' or 'taken' end
if redis.call('EXISTS', KEYS[5]) == 1 then return 'taken' end
redis.call('XADD', j, ARGV[2] .. '-0', 'd', ARGV[3])
redis.call('HSET', m, 'owner', ARGV[1], 'gen', ARGV[2], 'gens', cmsgpack.pack({0, tonumber(ARGV[2])}), unpack(ARGV, 7))
if ARGV[6] ~= '' then redis.call('SET', request, ARGV[6], 'PX', ARGV[4]) end
live(ARGV[4], ARGV[5])
return 'created'
"""

# op, op_id, nonce, expect_gen, expect_seq, owner, end_state, payload, resume_payload, ttl_live, ttl_terminal,
# ttl_record -> [outcome, state, gen, seq, entries] | [unknown] | [expired]
_STEP = """
local TABLE, OF_OWNERS, TERMINAL = $TABLE, $OF_OWNERS, $TERMINAL
local op, op_id, nonce, expect_gen, expect_seq, owner, end_state, payload, resume_payload = unpack(ARGV, 1, 9)
local r = redis.call('HMGET', m, 'state', 'gen', 'pause_seq', 'kept', 'kept_state', 'operations', 'gens', 'on_expiry')
if not r[1] then return {'unknown'} end
local tail = tail_of_log()
if not tail then
  if (op == 'finish' or op == 'expire') and not TERMINAL[r[1]] and expect_gen == r[2] then  -- in the record alone
    redis.call('HSET', m, 'state', op == 'finish' and end_state or 'cancelled', 'end', payload, 'ended', whole(now()))
    redis.call('HDEL', m, 'pause_seq', 'paused_since', 'kept', 'kept_state')
    redis.call('DEL', request)
  end
  return {'expired'}
end
local state, gen, pause_seq, kept, kept_state = r[1], tonumber(r[2]), tonumber(r[3] or nil), r[4], r[5]
local at = now()

local operations = {}
for _, known in ipairs(r[6] and cmsgpack.unpack(r[6]) or {}) do
  if at - known[2] < $KEPT_MS then
    if known[1] == op_id then
      local entries = {}
      if known[7] == nonce and known[8] > 0 then
        entries = redis.call('XRANGE', j, known[9], '+', 'COUNT', known[8])
      end
      return {known[3], known[4], known[5], known[6], entries}
    end
    operations[#operations + 1] = known
  end
end
if (expect_gen ~= '' and tonumber(expect_gen) ~= gen) or (expect_seq ~= '' and tonumber(expect_seq) ~= tail) then
  return {'stale', state, gen, pause_seq or tail, {}}
end

local outcome = (kept and OF_OWNERS[op]) or TABLE[op][state]
local entries, gens, set, unset = {}, cmsgpack.unpack(r[7]), {}, {}
local function write(field, value)
  if value then set[#set + 1] = field; set[#set + 1] = value else unset[#unset + 1] = field end
end
local function move()
  gen = math.max(gen + 1, at)
  if gens[#gens - 1] ~= tail + 1 then gens[#gens + 1] = tail + 1; gens[#gens + 1] = gen else gens[#gens] = gen end
end
local function append(data)
  move()
  tail = tail + 1
  local id = whole(gen) .. '-' .. whole(tail)
  redis.call('XADD', j, 'NOMKSTREAM', id, 'c', data)
  entries[#entries + 1] = {id, {'c', data}}
end
local function move_without_entry()
  move()
  redis.call('XSETID', j, whole(gen) .. '-' .. whole(tail))
end
local function go_on()
  pause_seq = nil
  write('pause_seq', false); write('paused_since', false); write('kept', false); write('kept_state', false)
end
local function finish(how, data)
  state = how
  write('end', data); write('ended', whole(at))
end

if outcome == 'changed' then
  if op == 'start' then
    move_without_entry()
    state = 'running'
  elseif op == 'pause' then
    append(payload)
    state, pause_seq = 'paused', tail
    write('pause_seq', whole(tail)); write('paused_since', whole(at))
  elseif op == 'resume' or (op == 'expire' and r[8] == 'resume') then
    append(resume_payload)
    state = 'running'
    go_on()
    if kept then append(kept); finish(kept_state, kept) end
  elseif op == 'cancel' or op == 'expire' then
    write('skip', pause_seq and whole(pause_seq) .. ',' .. whole(tail + 1))
    append(payload)
    go_on()
    finish('cancelled', payload)
  elseif op == 'finish' and state == 'paused' then
    move_without_entry()
    write('kept', payload); write('kept_state', end_state)
  elseif op == 'finish' then
    append(payload)
    finish(end_state, payload)
  elseif op == 'claim' then
    append(payload)
    write('owner', owner)
  end
  write('state', state); write('gen', whole(gen)); write('gens', cmsgpack.pack(gens))
end
local seq = pause_seq or tail
operations[#operations + 1] = {op_id, at, outcome, state, gen, seq, nonce, #entries, entries[1] and entries[1][1] or ''}
while #operations > $KEPT do table.remove(operations, 1) end
redis.call('HSET', m, 'operations', cmsgpack.pack(operations), unpack(set))
if #unset > 0 then redis.call('HDEL', m, unpack(unset)) end
if TERMINAL[state] then redis.call('DEL', request) end
if #entries > 0 and TERMINAL[state] and redis.call('XLEN', j) <= $SHORT then
  redis.call('COPY', j, KEYS[6])
  redis.call('RENAME', KEYS[6], j)
end
if #entries > 0 then live(TERMINAL[state] and ARGV[11] or ARGV[10], ARGV[12]) end
return {outcome, state, gen, seq, entries}
"""

# after, max_bytes -> [record, tail, entries] | [unknown] | [expired]
_READ = """
local fields = record()
if not fields[1] then
  m, j = KEYS[5], KEYS[6]
  fields = record()
  if not fields[1] or redis.call('EXISTS', j) == 0 then return {'unknown'} end
end
local tail = tail_of_log()
if not tail then return {'expired'} end
local first, most = tonumber(ARGV[1]) + 1, tonumber(ARGV[2])
local gens, from = cmsgpack.unpack(redis.call('HGET', m, 'gens')), '-'
for i = 1, #gens, 2 do
  if gens[i] <= first then from = whole(gens[i + 1]) .. '-' .. whole(first) end
end
local page, size, count = {}, 0, math.min(128, math.floor(most / 256) + 1)
while first <= tail do
  local part = redis.call('XRANGE', j, from, '+', 'COUNT', count)
  for _, entry in ipairs(part) do
    page[#page + 1] = entry
    size = size + #entry[2][2]
    if size >= most then return {fields, tail, page} end
  end
  if #part < count then break end
  from = '(' .. part[#part][1]
end
return {fields, tail, page}
"""

# -> [record, tail, expires in ms, facts, closed_by] | [unknown]
_KNOWN = """
local fields = record()
if not fields[1] then return {'unknown'} end
local tail = tail_of_log()
local facts, closed_by = redis.call('HGET', u, 'facts') or '', redis.call('HGET', m, 'closed_by')
return {fields, tail or -1, now() + redis.call('PTTL', tail and j or m), facts, closed_by}
"""

# facts, writer, its number for them, closed_by or nothing -> the stream's owner | nil
_ANNOTATE = """
local left = redis.call('PTTL', m)
if left <= 0 then return false end
local before = redis.call('HMGET', u, 'writer', 'number')
if before[1] ~= ARGV[2] or tonumber(before[2]) < tonumber(ARGV[3]) then
  redis.call('HSET', u, 'facts', ARGV[1], 'writer', ARGV[2], 'number', ARGV[3])
  redis.call('PEXPIRE', u, left)
  if ARGV[4] ~= '' then redis.call('HSET', m, 'closed_by', ARGV[4]) end
end
return redis.call('HGET', m, 'owner')
"""

# how long readers may read on, how long the id is not given out again -> what is known of the stream that is no more
_DELETE = """
local after_ms, late_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local about = redis.call('HGET', m, 'about')
if about then
  redis.call('RENAME', m, KEYS[5])
  redis.call('PEXPIRE', KEYS[5], math.max(after_ms, late_ms))
  if after_ms > 0 and redis.call('EXISTS', j) == 1 then
    redis.call('RENAME', j, KEYS[6])
    redis.call('PEXPIRE', KEYS[6], after_ms)
  end
end
redis.call('DEL', j, u, request)
return about or redis.call('HGET', KEYS[5], 'about')
"""

# ttl_live, ttl_record: the owner is alive
_TOUCH = """
local TERMINAL = $TERMINAL
local state = redis.call('HGET', m, 'state')
if state and not TERMINAL[state] then live(ARGV[1], ARGV[2]) end
return 0
"""

# KEYS: a replica's set. sid, how long it is needed
_OWN = """
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 0
"""

# KEYS: an index. score, member, how long it is needed, NX or nothing -> whether it is new
_MARK = """
local added
if ARGV[4] == 'NX' then added = redis.call('ZADD', KEYS[1], 'NX', ARGV[1], ARGV[2])
else added = redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2]) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return added
"""


def _lua(value: object) -> str:
    """A table of words, tables and `true`, as Lua writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_lua(item)}" for key, item in value.items()) + "}"
    return "true" if value is True else f"'{value}'"


class Scripts:
    """All of them; `now` is the text that tells the time."""

    def __init__(self, now: str = NOW) -> None:
        words = {
            "$NOW": now,
            "$FIELDS": ", ".join(f"'{field}'" for field in FIELDS),
            "$TABLE": _lua(TABLE),
            "$OF_OWNERS": _lua(_OF_OWNERS),
            "$TERMINAL": _lua(dict.fromkeys(sorted(TERMINAL), True)),
            "$KEPT_MS": f"{OPERATIONS_KEPT_S * 1000:.0f}",
            "$KEPT": str(OPERATIONS_KEPT),
            "$SHORT": str(SHORT_ENTRIES),
        }

        def script(body: str, flags: str = "#!lua flags=allow-oom") -> Script:
            text = _PRELUDE.replace("#!lua flags=allow-oom", flags) + body
            for word, meaning in words.items():
                text = text.replace(word, meaning)
            return Script(text)

        self.create = script(_CREATE, "#!lua")
        self.step = script(_STEP)
        self.read = script(_READ)
        self.known = script(_KNOWN)
        self.annotate = script(_ANNOTATE)
        self.delete = script(_DELETE)
        self.touch = script(_TOUCH)
        self.mark = script(_MARK)
        self.own = script(_OWN)

    def all(self) -> list[Script]:
        """What is loaded with every connection."""
        return [
            self.create, self.step, self.read, self.known, self.annotate, self.delete, self.touch, self.mark, self.own
        ]  # fmt: skip
