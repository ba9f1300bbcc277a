-- Renews the lease of a peer, and ends those that are over. KEYS: peers, peer values. ARGV: incarnation, lease in ms, value, "1" to
-- register. Returns: time in ms, whether it is known, the live peers' values, the values of those that ended.
local function heartbeat(keys, args)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local ended = {}
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', keys[1], '-inf', now)) do
    if other ~= args[1] or args[4] ~= '1' then
      ended[#ended + 1] = redis.call('HGET', keys[2], other) or ''
      redis.call('ZREM', keys[1], other)
      redis.call('HDEL', keys[2], other)
    end
  end
  local known = args[4] == '1' or redis.call('ZSCORE', keys[1], args[1])
  if known then
    redis.call('ZADD', keys[1], now + args[2], args[1])
    redis.call('HSET', keys[2], args[1], args[3])
  end
  return {now, known and 1 or 0, redis.call('HVALS', keys[2]), ended}
end

-- Takes or renews a node's name. KEYS: the name's. ARGV: incarnation, lease in ms. Returns whether it is this incarnation's.
local function hold_name(keys, args)
  local holder = redis.call('GET', keys[1])
  if holder and holder ~= args[1] then
    return 0
  end
  redis.call('SET', keys[1], args[1], 'PX', args[2])
  return 1
end

-- Ends a peer's lease, and gives its name back. KEYS: peers, peer values, the name's. ARGV: incarnation.
local function leave(keys, args)
  redis.call('ZREM', keys[1], args[1])
  redis.call('HDEL', keys[2], args[1])
  if keys[3] and redis.call('GET', keys[3]) == args[1] then
    redis.call('DEL', keys[3])
  end
  return 1
end

redis.register_function('heartbeat_@', heartbeat)
redis.register_function('hold_name_@', hold_name)
redis.register_function('leave_@', leave)

