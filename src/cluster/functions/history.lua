
-- Histories. A stream has the messages of a room: the id is the number and 0, the fields are m the message, t its time and x its end in ms (0: none),
-- and i its message id if it may come again. A hash of the room has r the engine's replication id under which the sequence began, s the sequence
-- (8 bytes), n the last number, f the one up to which messages were taken away, b the bytes of the others, and 'i' .. message id the number of
-- each that may come again. A zset has the rooms with messages, by when their last message is too old; a member is the names of the stream and of the
-- hash, with a line feed between them. One hash has b, the bytes of all. KEYS of a function that appends: the stream, the hash, the zset, the sums.

-- How long the sequence of a room without messages goes on, in ms: a device that comes back within it has missed nothing.
local SILENT_KEPT = 86400000
-- What a message takes up besides its own bytes.
local MESSAGE_BYTES = 160
-- Messages that one append takes away of its own room, and steps in which it makes room in all.
local STEPS = 100

local function history_at(stream, meta, ends, sums)
  local r, s, n, f, b = unpack(redis.call('HMGET', meta, 'r', 's', 'n', 'f', 'b'))
  return {
    stream = stream, meta = meta, ends = ends, sums = sums, member = stream .. '\n' .. meta,
    replication_id = r, sequence = s, last = tonumber(n or 0), floor = tonumber(f or 0), bytes = tonumber(b or 0), taken = 0
  }
end

local function replication_id()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end

-- Whether a sequence that began under a replication id goes on. What a caller passes may be that of its connection before this one.
local function goes_on(began_under, passed)
  return began_under and (began_under == passed or began_under == replication_id())
end

-- Writes what has changed. Returns the bytes of all histories.
local function save_history(history, added)
  redis.call('HSET', history.meta, 'n', text_of(history.last), 'f', text_of(history.floor), 'b', text_of(history.bytes))
  return redis.call('HINCRBY', history.sums, 'b', text_of(added - history.taken))
end

-- Takes away all messages; the sequence goes on.
local function silence(history)
  redis.call('UNLINK', history.stream, history.meta)
  redis.call('ZREM', history.ends, history.member)
  -- The engine may have evicted it.
  if not history.replication_id then
    return
  end
  redis.call('HINCRBY', history.sums, 'b', text_of(0 - history.bytes))
  history.floor, history.bytes = history.last, 0
  redis.call('HSET', history.meta, 'r', history.replication_id, 's', history.sequence)
  save_history(history, 0)
  redis.call('PEXPIRE', history.meta, SILENT_KEPT)
end

local function oldest_of(history)
  local oldest = redis.call('XRANGE', history.stream, '-', '+', 'COUNT', 1)[1]
  if not oldest then
    return nil
  end
  local fields = oldest[2]
  return {id = oldest[1], bytes = #fields[2] + MESSAGE_BYTES, time = tonumber(fields[4]), once = fields[8]}
end

local function take_message(history, message)
  redis.call('XDEL', history.stream, message.id)
  if message.once then
    redis.call('HDEL', history.meta, 'i' .. message.once)
  end
  history.floor = tonumber(string.match(message.id, '^%d+'))
  history.bytes = history.bytes - message.bytes
  history.taken = history.taken + message.bytes
end

-- Begins the sequence of a room anew if there is none, or if it began before the engine restarted or failed over: of what was published then, some may
-- be lost.
local function begin_sequence(history, passed, candidate)
  if goes_on(history.replication_id, passed) then
    return
  end
  if history.replication_id then
    silence(history)
  end
  redis.call('UNLINK', history.stream)
  history.replication_id, history.sequence = replication_id(), candidate
  history.last, history.floor, history.bytes = 0, 0, 0
  redis.call('HSET', history.meta, 'r', history.replication_id, 's', candidate)
  save_history(history, 0)
  redis.call('PEXPIRE', history.meta, SILENT_KEPT)
end

-- Takes messages away until the rest fits: those of the rooms whose last message is too old first.
local function make_room(ends, sums, max)
  for _ = 1, STEPS do
    local excess = tonumber(redis.call('HGET', sums, 'b') or 0) - max
    local member = excess > 0 and redis.call('ZRANGE', ends, 0, 0)[1]
    if not member then
      return
    end
    local stream, meta = string.match(member, '^([^\n]*)\n(.*)$')
    local history = history_at(stream, meta, ends, sums)
    local oldest = oldest_of(history)
    if not oldest or history.bytes <= excess or history.bytes <= oldest.bytes then
      silence(history)
    else
      take_message(history, oldest)
      save_history(history, 0)
    end
  end
end

-- Appends a message. Returns the sequence and the number there: if it comes again and is there still, that of the first time. `emit`: 12 the message id
-- if it may come again, or '', 13 the replication id that the caller knows, 14 a sequence if one is to begin, 15 the message, 16 its time to live in ms
-- (0: none), 17 the most messages, 18 how long one is kept in ms, 19 the most bytes of all.
local function append_message(keys, emit)
  local history = history_at(keys[6], keys[7], keys[8], keys[9])
  local id, message, size, age = emit[12], emit[15], tonumber(emit[17]), tonumber(emit[18])
  begin_sequence(history, emit[13], emit[14])
  local before = id ~= '' and redis.call('HGET', history.meta, 'i' .. id)
  if before then
    return history.sequence, tonumber(before)
  end
  local now, number = now_ms(), history.last + 1
  local fields = {'m', message, 't', text_of(now), 'x', emit[16] == '0' and '0' or text_of(now + emit[16])}
  if id ~= '' then
    fields[7], fields[8] = 'i', id
    redis.call('HSET', history.meta, 'i' .. id, text_of(number))
  end
  redis.call('XADD', history.stream, text_of(number) .. '-0', unpack(fields))
  local added = #message + MESSAGE_BYTES
  history.last, history.bytes = number, history.bytes + added
  local oldest = oldest_of(history)
  for _ = 1, STEPS do
    if not oldest or (number - history.floor <= size and oldest.time > now - age) then
      break
    end
    take_message(history, oldest)
    oldest = oldest_of(history)
  end
  local bytes = save_history(history, added)
  redis.call('ZADD', history.ends, text_of(now + age), history.member)
  redis.call('PERSIST', history.meta)
  if bytes > tonumber(emit[19]) then
    make_room(history.ends, history.sums, tonumber(emit[19]))
  end
  return history.sequence, number
end

-- Where a room stands. KEYS: as of a function that appends. ARGV: the replication id that the caller knows, a sequence if one is to begin. Returns the
-- sequence and the last number.
local function stand(keys, args)
  local history = history_at(keys[1], keys[2], keys[3], keys[4])
  begin_sequence(history, args[1], args[2])
  if redis.call('PTTL', history.meta) > 0 then
    redis.call('PEXPIRE', history.meta, SILENT_KEPT)
  end
  return {history.sequence, history.last}
end

-- What came after a number. KEYS: the stream, the hash. ARGV: the replication id that the caller knows, the sequence, the number, the most messages, the
-- bytes at which a page ends, how long a message is kept in ms. Returns the number up to which it has looked, the last number, and of each message
-- the number, the message and the time; nothing: that cannot be told whole.
local function read_messages(keys, args)
  local began_under, sequence, last = unpack(redis.call('HMGET', keys[2], 'r', 's', 'n'))
  local cursor, left, bytes, now = tonumber(args[3]), tonumber(args[4]), tonumber(args[5]), now_ms()
  last = tonumber(last or 0)
  if not goes_on(began_under, args[1]) or sequence ~= args[2] or cursor > last then
    return {}
  end
  local page = {0, last}
  while cursor < last and left > 0 and bytes > 0 do
    local messages = redis.call('XRANGE', keys[1], text_of(cursor + 1) .. '-0', '+', 'COUNT', math.min(left, 16))
    if #messages == 0 then
      return {}
    end
    for _, message in ipairs(messages) do
      local number, fields = tonumber(string.match(message[1], '^%d+')), message[2]
      local time, ends_at = tonumber(fields[4]), tonumber(fields[6])
      if number ~= cursor + 1 or time <= now - args[6] then
        return {}
      end
      if ends_at == 0 or ends_at > now then
        page[#page + 1], page[#page + 2], page[#page + 3] = number, fields[2], time
      end
      cursor, left, bytes = number, left - 1, bytes - #fields[2]
    end
  end
  page[1] = cursor
  return page
end

-- Takes away the messages of some of the rooms where all are too old. KEYS: the zset, the sums. ARGV: how many at most. Returns how many.
local function sweep_histories(keys, args)
  local ended = redis.call('ZRANGEBYSCORE', keys[1], '-inf', text_of(now_ms()), 'LIMIT', 0, args[1])
  for _, member in ipairs(ended) do
    local stream, meta = string.match(member, '^([^\n]*)\n(.*)$')
    silence(history_at(stream, meta, keys[1], keys[2]))
  end
  return #ended
end

register_frugal('stand_@', stand)
register_frugal('sweep_histories_@', sweep_histories)
redis.register_function{function_name = 'read_messages_@', callback = read_messages, flags = {'no-writes', 'allow-oom'}}
