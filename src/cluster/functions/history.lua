
-- Histories. A stream has the messages of a room: the id is the number and 0, the fields are m the message, t its time and x its end in ms (0: none),
-- and i its message id if it may come again. A hash of the room has r the engine's replication id when the room began, s the sequence (8 bytes), n the
-- last number, f the one up to which messages were taken away, b the bytes of the others, and 'i' .. message id the number of each that may come again.
-- Three zsets have rooms, by a time: ends those with messages, by when the last one is too old; talking the same, by when it came; silent those whose
-- messages are all gone, by when that happened. A member is the names of the stream and of the hash, with a line feed between them. One hash, the sums,
-- has b, the bytes of all messages, and where rooms begin: r the replication id, s the sequence, and under four hexadecimal digits the number (none: 0)
-- of the rooms whose names have that digest.
--
-- Nothing is written for a room before its first message: until then it stands where rooms begin. A silent room that is forgotten stands there again, so
-- the number there is raised to the room's last one: no number is given twice in a sequence. Devices of another room of that digest that was never
-- written are told that they may have missed something.
--
-- KEYS of a function that appends: the stream, the hash, ends, talking, silent, the sums.

-- Rooms without messages whose last numbers are remembered.
local MAX_SILENT = 100000
-- What a message takes up besides its own bytes.
local MESSAGE_BYTES = 160
-- Messages that one append takes away of its own room, and steps in which it makes room in all.
local STEPS = 100
-- The engine is asked for its replication id again after so many ms: that takes 4 us.
local ID_FRESH = 10

local known_id, known_at = nil, 0

-- The engine's replication id: another one since the engine restarted or failed over. Of what was published before, some may be lost. The variables
-- are the process's: a restart and a copy of the data from another engine clear them.
local function replication_id(now)
  if not known_id or now < known_at or now >= known_at + ID_FRESH then
    known_id, known_at = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)'), now
  end
  return known_id
end

local function orders_of(keys, first)
  return {ends = keys[first], talking = keys[first + 1], silent = keys[first + 2], sums = keys[first + 3]}
end

local function history_at(stream, meta, orders)
  local r, s, n, f, b = unpack(redis.call('HMGET', meta, 'r', 's', 'n', 'f', 'b'))
  return {
    stream = stream, meta = meta, orders = orders, member = stream .. '\n' .. meta,
    began_under = r, sequence = s, last = tonumber(n or 0), floor = tonumber(f or 0), bytes = tonumber(b or 0), taken = 0
  }
end

local function history_of(member, orders)
  local stream, meta = string.match(member, '^([^\n]*)\n(.*)$')
  return history_at(stream, meta, orders)
end

-- Writes what has changed. Returns the bytes of all histories.
local function save_history(history, added)
  redis.call('HSET', history.meta, 'n', text_of(history.last), 'f', text_of(history.floor), 'b', text_of(history.bytes))
  return redis.call('HINCRBY', history.orders.sums, 'b', text_of(added - history.taken))
end

-- Removes all that there is of a room.
local function remove_history(history)
  local orders = history.orders
  redis.call('UNLINK', history.stream, history.meta)
  for _, order in ipairs({orders.ends, orders.talking, orders.silent}) do
    redis.call('ZREM', order, history.member)
  end
  if history.bytes > 0 then
    redis.call('HINCRBY', orders.sums, 'b', text_of(0 - history.bytes))
  end
end

-- The field of the number where a room begins.
local function digest_of(history)
  return string.sub(redis.sha1hex(history.meta), 1, 4)
end

-- Begins the sequence in which all rooms begin, other than any before. Returns it and the number.
local function begin_all(sums, id)
  local bytes = redis.call('HGET', sums, 'b') or '0'
  local digest = string.sub(redis.sha1hex(id .. text_of(now_us())), 1, 16)
  local sequence = string.gsub(digest, '%x%x', function(byte) return string.char(tonumber(byte, 16)) end)
  redis.call('UNLINK', sums)
  redis.call('HSET', sums, 'b', bytes, 'r', id, 's', sequence)
  return sequence, 0
end

-- Forgets where a room stood.
local function forget_history(history, now)
  local sums, digest = history.orders.sums, digest_of(history)
  local sequence, number = unpack(redis.call('HMGET', sums, 's', digest))
  if not history.began_under then
    -- The engine has evicted it.
    begin_all(sums, replication_id(now))
  elseif history.sequence == sequence and history.last > tonumber(number or 0) then
    redis.call('HSET', sums, digest, text_of(history.last))
  end
  remove_history(history)
end

-- Takes away all messages of a room; its sequence goes on unless it is over.
local function silence(history, now)
  if history.began_under ~= replication_id(now) then
    return forget_history(history, now)
  end
  remove_history(history)
  redis.call('HSET', history.meta, 'r', history.began_under, 's', history.sequence, 'n', text_of(history.last))
  local silent = history.orders.silent
  redis.call('ZADD', silent, text_of(now), history.member)
  if redis.call('ZCARD', silent) > MAX_SILENT then
    forget_history(history_of(redis.call('ZRANGE', silent, 0, 0)[1], history.orders), now)
  end
end

-- Where a room begins. Returns the sequence and the number; nil: the engine has begun no sequence since it restarted or failed over, or has evicted
-- where the room stood.
local function beginning_of(history, id)
  local orders = history.orders
  local begun_under, sequence, number = unpack(redis.call('HMGET', orders.sums, 'r', 's', digest_of(history)))
  if begun_under ~= id then
    return nil
  end
  local is_listed = redis.call('ZSCORE', orders.talking, history.member) or redis.call('ZSCORE', orders.silent, history.member)
  if is_listed and not history.began_under then
    return nil
  end
  return sequence, tonumber(number or 0)
end

-- Has a room begin if it has not since the engine restarted or failed over. Nothing is written for it.
local function begin_history(history, now)
  local id = replication_id(now)
  if history.began_under == id then
    return
  end
  local sequence, number = beginning_of(history, id)
  if not sequence then
    sequence, number = begin_all(history.orders.sums, id)
  end
  remove_history(history)
  history.sequence, history.last, history.floor, history.bytes = sequence, number, number, 0
end

-- The first message of a history, if there is one.
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

-- Takes messages away until the rest fits: those of the rooms where the last message came longest ago.
local function make_room(orders, max, now)
  for _ = 1, STEPS do
    local excess = tonumber(redis.call('HGET', orders.sums, 'b') or 0) - max
    local member = excess > 0 and redis.call('ZRANGE', orders.talking, 0, 0)[1]
    if not member then
      return
    end
    local history = history_of(member, orders)
    local oldest = oldest_of(history)
    if not oldest or history.bytes <= excess or history.bytes <= oldest.bytes then
      silence(history, now)
    else
      take_message(history, oldest)
      save_history(history, 0)
    end
  end
end

-- Appends a message. Returns the sequence and the number there: if it comes again and is there still, that of the first time. `emit`: 12 the message id
-- if it may come again, or '', 13 the message, 14 its time to live in ms (0: none), 15 the most messages, 16 how long one is kept in ms, 17 the most
-- bytes of all.
local function append_message(keys, emit)
  local us, history = now_us(), history_at(keys[6], keys[7], orders_of(keys, 8))
  local now = math.floor(us / 1000)
  local id, message, size, age, orders = emit[12], emit[13], tonumber(emit[15]), tonumber(emit[16]), history.orders
  begin_history(history, now)
  local before = id ~= '' and redis.call('HGET', history.meta, 'i' .. id)
  if before then
    return history.sequence, tonumber(before)
  end
  local number = history.last + 1
  local fields = {'m', message, 't', text_of(now), 'x', emit[14] == '0' and '0' or text_of(now + emit[14])}
  if id ~= '' then
    fields[7], fields[8] = 'i', id
  end
  local oldest = oldest_of(history)
  -- An engine that forbids the commands of streams has refused one by now, and nothing is written yet.
  redis.call('XADD', history.stream, text_of(number) .. '-0', unpack(fields))
  if id ~= '' then
    redis.call('HSET', history.meta, 'i' .. id, text_of(number))
  end
  if history.bytes == 0 then
    redis.call('HSET', history.meta, 'r', replication_id(now), 's', history.sequence)
    redis.call('ZREM', orders.silent, history.member)
  end
  local added = #message + MESSAGE_BYTES
  history.last, history.bytes = number, history.bytes + added
  for _ = 1, STEPS do
    if not oldest or (number - history.floor <= size and oldest.time > now - age) then
      break
    end
    take_message(history, oldest)
    oldest = oldest_of(history)
  end
  local bytes = save_history(history, added)
  redis.call('ZADD', orders.ends, text_of(now + age), history.member)
  redis.call('ZADD', orders.talking, text_of(us), history.member)
  if bytes > tonumber(emit[17]) then
    make_room(orders, tonumber(emit[17]), now)
  end
  return history.sequence, number
end

-- Where a room stands. Returns the sequence and the last number; nil: it is to begin.
local function place_of(history, now)
  local id = replication_id(now)
  if history.began_under == id then
    return history.sequence, history.last
  end
  return beginning_of(history, id)
end

-- Where a room stands. KEYS: as of a function that appends. Returns the sequence and the last number; nothing: `begin` is to be called.
local function stand(keys)
  local sequence, number = place_of(history_at(keys[1], keys[2], orders_of(keys, 3)), now_ms())
  return sequence and {sequence, number}
end

-- The same of a room that is to begin. It writes where all rooms begin, and nothing of its own.
local function begin(keys)
  local history = history_at(keys[1], keys[2], orders_of(keys, 3))
  begin_history(history, now_ms())
  return {history.sequence, history.last}
end

-- What came after a number. KEYS: as of a function that appends. ARGV: the sequence, the number, the most messages, the most bytes of those after the
-- first, how long a message is kept in ms. Returns the number up to which it has looked, the last number, and of each message the number, the
-- message and the time; nothing: that cannot be told whole.
local function read_messages(keys, args)
  local now, history = now_ms(), history_at(keys[1], keys[2], orders_of(keys, 3))
  local cursor, left, bytes = tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  local sequence, last = place_of(history, now)
  if sequence ~= args[1] or cursor > last or (cursor < last and history.began_under ~= replication_id(now)) then
    return {}
  end
  -- Nothing is read that might not fit, since reading takes the engine's time.
  local page, step = {0, last}, history.bytes <= bytes and left or 1
  while cursor < last and left > 0 do
    local messages = redis.call('XRANGE', history.stream, text_of(cursor + 1) .. '-0', '+', 'COUNT', math.min(left, step))
    if #messages == 0 then
      return {}
    end
    for _, message in ipairs(messages) do
      local number, fields = tonumber(string.match(message[1], '^%d+')), message[2]
      local time, ends_at = tonumber(fields[4]), tonumber(fields[6])
      if number ~= cursor + 1 or time <= now - args[5] then
        return {}
      end
      bytes = bytes - #fields[2]
      if bytes < 0 and cursor > tonumber(args[2]) then
        page[1] = cursor
        return page
      end
      if ends_at == 0 or ends_at > now then
        page[#page + 1], page[#page + 2], page[#page + 3] = number, fields[2], time
      end
      cursor, left = number, left - 1
    end
  end
  page[1] = cursor
  return page
end

-- Takes away the messages of some of the rooms where all are too old. KEYS: ends, talking, silent, the sums. ARGV: how many at most. Returns how many.
local function sweep_histories(keys, args)
  local now, orders = now_ms(), orders_of(keys, 1)
  local ended = redis.call('ZRANGEBYSCORE', orders.ends, '-inf', text_of(now), 'LIMIT', 0, args[1])
  for _, member in ipairs(ended) do
    silence(history_of(member, orders), now)
  end
  return #ended
end

register_frugal('sweep_histories_@', sweep_histories)
register_frugal('begin_@', begin)
redis.register_function{function_name = 'stand_@', callback = stand, flags = {'no-writes', 'allow-oom'}}
redis.register_function{function_name = 'read_messages_@', callback = read_messages, flags = {'no-writes', 'allow-oom'}}
