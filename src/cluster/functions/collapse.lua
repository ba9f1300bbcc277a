-- Collapse windows. A zset has the open ones, by when they end if the node that keeps them is gone; a member is the topic's key and the collapse
-- key, with a line feed between them. The hash of a topic has what waits by collapse key: its order, a space, the frame. One hash has the sums:
-- b the bytes of all that waits, o the last order. An order is the time in microseconds, or one more than the one before.

-- Takes what waits. Returns its order and the frame; nil: nothing waits.
local function take_waiting(topic, sums, key)
  local waiting = redis.call('HGET', topic, key)
  if not waiting then
    return nil
  end
  redis.call('HDEL', topic, key)
  redis.call('HINCRBY', sums, 'b', -#waiting)
  local space = string.find(waiting, ' ', 1, true)
  return string.sub(waiting, 1, space - 1), string.sub(waiting, space + 1)
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

-- Opens a window, or has the frame wait for its end in place of the one before. KEYS: the topic's hash, the windows, the sums. ARGV: key, frame,
-- after how many ms the window is over if its node is gone, most windows, most bytes that wait. Returns 1: it opens; 0: it waits; -1: full.
local function offer_to_window(keys, args)
  local now = now_ms()
  local member = keys[1] .. '\n' .. args[1]
  local ends_at = redis.call('ZSCORE', keys[2], member)
  if ends_at and tonumber(ends_at) > now then
    local order = text_of(math.max(now_us(), tonumber(redis.call('HGET', keys[3], 'o') or 0) + 1))
    local waiting = order .. ' ' .. args[2]
    local more = #waiting - redis.call('HSTRLEN', keys[1], args[1])
    if tonumber(redis.call('HGET', keys[3], 'b') or 0) + more > tonumber(args[5]) then
      return -1
    end
    redis.call('HSET', keys[3], 'o', order)
    redis.call('HSET', keys[1], args[1], waiting)
    redis.call('HINCRBY', keys[3], 'b', more)
    return 0
  end
  if ends_at then
    -- This one is newer than what waits for a node that is gone.
    take_waiting(keys[1], keys[3], args[1])
  elseif redis.call('ZCARD', keys[2]) >= tonumber(args[4]) then
    close_ended(keys[2], keys[3], now, 1000)
    if redis.call('ZCARD', keys[2]) >= tonumber(args[4]) then
      return -1
    end
  end
  redis.call('ZADD', keys[2], text_of(now + args[3]), member)
  return 1
end

-- Takes what waits for the end of a window, and opens the next one; closes the window if nothing waits. KEYS: the topic's hash, the windows, the
-- sums. ARGV: key, after how many ms the next window is over if its node is gone. Returns the order and the frame, or nothing.
local function end_window(keys, args)
  local member = keys[1] .. '\n' .. args[1]
  local order, frame = take_waiting(keys[1], keys[3], args[1])
  if frame then
    redis.call('ZADD', keys[2], text_of(now_ms() + args[2]), member)
    return {order, frame}
  end
  redis.call('ZREM', keys[2], member)
  return nil
end

-- Takes all that waits of a topic; its windows stay open. KEYS: the topic's hash, the sums. Returns, of each, the order, the key and the frame.
local function take_topic(keys)
  local all = {}
  for _, key in ipairs(redis.call('HKEYS', keys[1])) do
    local order, frame = take_waiting(keys[1], keys[2], key)
    all[#all + 1] = {order, key, frame}
  end
  return all
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
redis.register_function('end_window_@', end_window)
redis.register_function('take_topic_@', take_topic)
redis.register_function('sweep_windows_@', sweep_windows)
redis.register_function('note_collapsing_@', note_collapsing)
