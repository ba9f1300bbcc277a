-- Collapse windows. A zset has the open ones, by when they end if the node that keeps them is gone; a member is the topic's key and the collapse
-- key, with a line feed between them. The hash of a topic has the emits that wait by collapse key: the order, a space, the emit in MessagePack; and
-- under '' the order up to which their values are not kept. One hash has the sums: b the bytes of all that waits, o the last order. An order is the
-- time in microseconds, or one more than the one before.
--
-- What waits is taken and published in one function: no emit that is accepted in between overtakes it. KEYS of such a function: those of one
-- that publishes an emit (11), the windows.

-- Why an emit was not published, besides what retain returns: it waits, there is no room for it, there is none.
local WAITS, FULL, NONE = -3, -4, -5

-- Takes what waits. Returns its order, the emit, and whether a value that came later is retained; nil: nothing waits.
local function take_waiting(topic, sums, key)
  local waiting = redis.call('HGET', topic, key)
  if not waiting then
    return nil
  end
  local last_change = tonumber(redis.call('HGET', topic, '') or 0)
  redis.call('HDEL', topic, key)
  if last_change > 0 and redis.call('HLEN', topic) == 1 then
    redis.call('DEL', topic)
  end
  redis.call('HINCRBY', sums, 'b', -#waiting)
  local space = string.find(waiting, ' ', 1, true)
  local order = tonumber(string.sub(waiting, 1, space - 1))
  return order, cmsgpack.unpack(string.sub(waiting, space + 1)), order <= last_change
end

-- The field of a frame that says when it was sent: behind the others it replaces the one before.
local function sent_now()
  local ms, bytes = now_ms(), '\8'
  while ms >= 128 do
    bytes = bytes .. string.char(ms % 128 + 128)
    ms = math.floor(ms / 128)
  end
  return bytes .. string.char(ms)
end

-- Publishes an emit that was deferred, for the node that a frame begins with. It keeps the version in which it is written.
local function publish_deferred(keys, start, order, emit, is_outdated)
  emit[2] = string.sub(emit[2], 1, 1) .. string.sub(start, 2)
  emit[3] = emit[3] .. sent_now()
  return publish_emit(keys, emit, order, is_outdated)
end

local function close_ended(windows, sums, now, steps)
  local ended = redis.call('ZRANGEBYSCORE', windows, '-inf', text_of(now), 'LIMIT', 0, steps)
  for _, member in ipairs(ended) do
    local feed = string.find(member, '\n', 1, true)
    take_waiting(string.sub(member, 1, feed - 1), sums, string.sub(member, feed + 1))
    redis.call('ZREM', windows, member)
  end
  return #ended
end

-- Has an emit wait, in place of the one before. Returns why it cannot.
local function defer(topic, sums, key, emit, max_bytes)
  local order = text_of(math.max(now_us(), tonumber(redis.call('HGET', sums, 'o') or 0) + 1))
  local waiting = order .. ' ' .. cmsgpack.pack(emit)
  local more = #waiting - redis.call('HSTRLEN', topic, key)
  if tonumber(redis.call('HGET', sums, 'b') or 0) + more > tonumber(max_bytes) then
    return FULL
  end
  redis.call('HSET', sums, 'o', order)
  redis.call('HSET', topic, key, waiting)
  redis.call('HINCRBY', sums, 'b', more)
  return WAITS
end

-- Publishes an emit and opens a window, or has the emit wait for the end of the one that is open. ARGV: key, after how many ms the window is over if
-- its node is gone, most windows, most bytes that wait, the emit. Returns how many received it; -1, -2: as retain does; -3: it waits; -4: full.
local function offer_to_window(keys, args)
  local now, emit = now_ms(), emit_of(args, 5)
  local topic, sums, windows, key = keys[4], keys[5], keys[12], args[1]
  local member = topic .. '\n' .. key
  local ends_at = redis.call('ZSCORE', windows, member)
  if ends_at and tonumber(ends_at) > now then
    return is_change(emit) and problem_of(keys, emit) or defer(topic, sums, key, emit, args[4])
  end
  if not ends_at and redis.call('ZCARD', windows) >= tonumber(args[3]) then
    close_ended(windows, sums, now, 1000)
    if redis.call('ZCARD', windows) >= tonumber(args[3]) then
      return FULL
    end
  end
  local receivers = publish_emit(keys, emit)
  if receivers >= 0 then
    -- What waits for a node that is gone is older.
    take_waiting(topic, sums, key)
    redis.call('ZADD', windows, text_of(now + args[2]), member)
  end
  return receivers
end

-- Publishes what waits for the end of a window, and opens the next one; closes the window if nothing waits. ARGV: key, after how many ms the next
-- window is over if its node is gone, what a frame of the node begins with. Returns how many received it; -5: nothing waits.
local function end_window(keys, args)
  local member = keys[4] .. '\n' .. args[1]
  local order, emit, is_outdated = take_waiting(keys[4], keys[5], args[1])
  if not order then
    redis.call('ZREM', keys[12], member)
    return NONE
  end
  redis.call('ZADD', keys[12], text_of(now_ms() + args[2]), member)
  return publish_deferred(keys, args[3], order, emit, is_outdated)
end

-- Publishes all that waits of a topic in its order, and then an emit without a collapse key; the topic's windows stay open. ARGV: the emit. Returns
-- how many received it, or what retain returns.
local function publish_after_waiting(keys, args)
  local emit, waiting = emit_of(args, 1), {}
  for _, key in ipairs(redis.call('HKEYS', keys[4])) do
    if key ~= '' then
      waiting[#waiting + 1] = {take_waiting(keys[4], keys[5], key)}
    end
  end
  table.sort(waiting, function(a, b) return a[1] < b[1] end)
  -- The number 0: nobody waits for answers.
  local start = string.sub(emit[2], 1, 9) .. string.rep('\0', 8)
  for _, one in ipairs(waiting) do
    publish_deferred(keys, start, unpack(one))
  end
  return publish_emit(keys, emit)
end

-- Closes some of the windows whose nodes are gone. KEYS: the windows, the sums. ARGV: how many at most. Returns how many.
local function sweep_windows(keys, args)
  return close_ended(keys[1], keys[2], now_ms(), args[1])
end

-- Notes that an event is collapsed. KEYS: the events. ARGV: event, how long that is remembered in ms. Returns 1 if that was not known.
local function note_collapsing(keys, args)
  local now = now_ms()
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', text_of(now))
  local is_new = redis.call('ZADD', keys[1], text_of(now + args[2]), args[1])
  redis.call('PEXPIRE', keys[1], args[2])
  return is_new
end

redis.register_function('offer_to_window_@', offer_to_window)
register_frugal('end_window_@', end_window)
register_frugal('publish_after_waiting_@', publish_after_waiting)
redis.register_function('keep_after_waiting_@', publish_after_waiting)
register_frugal('sweep_windows_@', sweep_windows)
redis.register_function('note_collapsing_@', note_collapsing)
