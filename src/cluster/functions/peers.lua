-- Renews the lease of a peer. KEYS: peers, peer values. ARGV: incarnation, lease in ms, value, "1" to register. Returns: time in ms, whether
-- the lease is there, the live peers' values, and those whose lease is over: they count as live until they are removed.
local function heartbeat(keys, args)
  local now = now_ms()
  local function has_lease(score)
    -- Far ahead: the engine's clock was set back.
    return score and tonumber(score) > now and tonumber(score) <= now + 2 * args[2]
  end
  local known = args[4] == '1' or has_lease(redis.call('ZSCORE', keys[1], args[1]))
  if known then
    redis.call('ZADD', keys[1], text_of(now + args[2]), args[1])
    redis.call('HSET', keys[2], args[1], args[3])
  end
  local ended = {}
  local peers = redis.call('ZRANGE', keys[1], 0, -1, 'WITHSCORES')
  for index = 1, #peers, 2 do
    if not has_lease(peers[index + 1]) then
      ended[#ended + 1] = redis.call('HGET', keys[2], peers[index]) or ''
    end
  end
  return {now, known and 1 or 0, redis.call('HVALS', keys[2]), ended}
end

-- Removes a peer whose lease is over. KEYS: peers, peer values. ARGV: incarnation.
local function remove_peer(keys, args)
  redis.call('ZREM', keys[1], args[1])
  redis.call('HDEL', keys[2], args[1])
  return 1
end

-- Takes or renews a node's name. KEYS: the name's. ARGV: holder, lease in ms. Returns whether it is this holder's.
local function hold_name(keys, args)
  local holder = redis.call('GET', keys[1])
  if holder and holder ~= args[1] then
    return 0
  end
  redis.call('SET', keys[1], args[1], 'PX', args[2])
  return 1
end

-- Ends a peer's lease, and gives its name back. KEYS: peers, peer values, the name's. ARGV: incarnation, the name's holder.
local function leave(keys, args)
  remove_peer(keys, args)
  if redis.call('GET', keys[3]) == args[2] then
    redis.call('DEL', keys[3])
  end
  return 1
end

redis.register_function('heartbeat_@', heartbeat)
redis.register_function('remove_peer_@', remove_peer)
redis.register_function('hold_name_@', hold_name)
redis.register_function('leave_@', leave)

