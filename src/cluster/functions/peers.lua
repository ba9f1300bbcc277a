-- What the engine knows of peers is of one generation, until it may not know some of them any more, or counts connections as theirs that they
-- have given up: it restarted, it is another one, or no lease was renewed for half of one while there were some (it stood still; a clock that is
-- set to another time looks alike). An engine that knows nothing may never have known a peer: then its generation is as old as the engine, until a
-- peer comes that had a lease before. A generation has settled after args[9] ms: by then all peers from before are back or dead. One that began
-- because the engine stood still knows all peers if the one before did, or if its first peer had come (`heard`) so long before. Returns the name
-- of the generation, when it began in ms, whether the engine stood still, and whether all peers were known then.
local function generation_of(keys, args, now, lease)
  local key = keys[4]
  local info = redis.call('INFO', 'server')
  local run = string.match(info, 'run_id:(%w+)') or ''
  local state = redis.call('HMGET', key, 'run', 'name', 'since', 'renewed', 'stood_still', 'is_first', 'whole', 'heard')
  local since, renewed, heard = tonumber(state[3]), tonumber(state[4]), tonumber(state[8]) or now
  local had_lease = args[7] ~= '' and args[7] ~= state[2]
  -- Other versions do not write it: it holds for the generation that it names.
  local is_whole = state[7] and state[7] == state[2]
  local begins, stood_still, is_first = true, '0', '0'
  local function has_stood_still()
    local others = redis.call('ZCARD', keys[1]) - (redis.call('ZSCORE', keys[1], args[1]) and 1 or 0)
    return math.abs(now - renewed) > lease / 2 and (others > 0 or renewed - since < tonumber(args[9]))
  end
  if not state[1] and not had_lease then
    since, is_first, is_whole = now - 1000 * (tonumber(string.match(info, 'uptime_in_seconds:(%d+)')) or 0), '1', false
  elseif state[1] ~= run or state[6] == '1' and had_lease then
    since, is_whole = now, false
  elseif has_stood_still() then
    is_whole = is_whole or renewed - heard >= tonumber(args[9])
    since, stood_still = now, '1'
  else
    -- Later than now: the engine's clock was set back.
    begins, since, stood_still, is_first = false, math.min(since, now), state[5], state[6]
  end
  local name = state[2]
  if begins then
    name, heard = run .. ':' .. text_of(now) .. ':' .. stood_still .. is_first, now
    redis.call('DEL', keys[3], keys[5])
  end
  redis.call('HSET', key, 'run', run, 'name', name, 'since', text_of(since), 'renewed', text_of(now), 'heard', text_of(heard))
  redis.call('HSET', key, 'stood_still', stood_still, 'is_first', is_first, 'whole', is_whole and name or '')
  return name, since, tonumber(stood_still), is_whole
end

-- Renews the lease of a peer. KEYS: peers, peer values, what each peer has seen, the generation, the peers that are back since the engine stood
-- still. ARGV: incarnation, lease in ms, value, the generation in which this incarnation has its lease, or '' if it has none, the last change of
-- the peers that it has seen, the channel that tells of changes, the generation in which this process last had a lease, or '' if it never had
-- one, '1' if all its rooms are subscribed by a connection before which the engine has closed all others of this peer, and the age in ms at which
-- a generation has settled. Returns: time in ms, whether the lease is there, what is told of the generation, the live peers' values, and the
-- incarnation and the value of each whose lease is over: they count as live until they are removed. Told are the generation's name, whether it
-- began because the engine stood still, whether it has settled, that is, all peers from before are back or dead, its last change, and the last
-- change that all have seen.
local function heartbeat(keys, args)
  local now, lease = now_ms(), tonumber(args[2])
  local generation, since, stood_still, is_whole = generation_of(keys, args, now, lease)
  local function has_lease(score)
    score = tonumber(score)
    -- Far ahead: the engine's clock was set back. Leases of another generation hold as long as the first of this one.
    return score and math.max(score <= now + 2 * lease and score or 0, since + lease) > now
  end
  local registers = args[4] ~= generation
  local came_back = false
  local known = registers or has_lease(redis.call('ZSCORE', keys[1], args[1]))
  if known then
    redis.call('ZADD', keys[1], text_of(now + lease), args[1])
    redis.call('HSET', keys[2], args[1], args[3])
    if not registers then
      redis.call('ZADD', keys[3], args[5], args[1])
      -- Not when it registers: such a call may have waited while the engine stood still, and its caller may have given connections up since.
      came_back = stood_still == 1 and args[8] == '1' and redis.call('HGET', keys[5], args[1]) ~= generation
      if came_back then
        redis.call('HSET', keys[5], args[1], generation)
      end
    elseif redis.call('ZADD', keys[3], 'NX', 0, args[1]) == 1 then
      redis.call('HINCRBY', keys[4], 'change', 1)
      redis.call('PUBLISH', args[6], args[1])
    end
  end
  local values, ended, are_back = {}, {}, stood_still == 1 and is_whole
  local peers = redis.call('ZRANGE', keys[1], 0, -1, 'WITHSCORES')
  for index = 1, #peers, 2 do
    local value = redis.call('HGET', keys[2], peers[index]) or ''
    values[#values + 1] = value
    are_back = are_back and redis.call('HGET', keys[5], peers[index]) == generation
    if not has_lease(peers[index + 1]) then
      ended[#ended + 1], ended[#ended + 2] = peers[index], value
    end
  end
  local change = tonumber(redis.call('HGET', keys[4], 'change') or 0)
  local seen = tonumber(redis.call('ZRANGE', keys[3], 0, 0, 'WITHSCORES')[2] or change)
  if came_back and are_back then
    redis.call('PUBLISH', args[6], args[1])
  end
  local has_settled = are_back or now - since >= tonumber(args[9])
  local told = {generation, stood_still, has_settled and 1 or 0, change, seen}
  return {now, known and 1 or 0, told, values, ended}
end

-- Removes a peer whose lease is over. KEYS: peers, peer values, what each peer has seen, the peers that are back. ARGV: incarnation.
local function remove_peer(keys, args)
  redis.call('ZREM', keys[1], args[1])
  redis.call('HDEL', keys[2], args[1])
  redis.call('ZREM', keys[3], args[1])
  redis.call('HDEL', keys[4], args[1])
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

-- Ends a peer's lease, and gives its name back. KEYS: as for `remove_peer`, and the name's. ARGV: incarnation, the name's holder.
local function leave(keys, args)
  remove_peer(keys, args)
  if redis.call('GET', keys[5]) == args[2] then
    redis.call('DEL', keys[5])
  end
  return 1
end

register_frugal('heartbeat_@', heartbeat)
register_frugal('remove_peer_@', remove_peer)
register_frugal('hold_name_@', hold_name)
register_frugal('leave_@', leave)

