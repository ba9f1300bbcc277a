-- Idempotency keys. The hash of one has: h the request's hash, m the message id, s the state (r running, p published, d done, i idle: given up),
-- t the token of the claim, l the end of its lease in ms, r the receipt. A zset has the keys by the time of their claim in microseconds, a hash the
-- bytes of large receipts, with their sum under ''.

local function forget_key(ages, sizes, key)
  redis.call('ZREM', ages, key)
  redis.call('DEL', key)
  local bytes = redis.call('HGET', sizes, key)
  if bytes then
    redis.call('HDEL', sizes, key)
    redis.call('HINCRBY', sizes, '', -bytes)
  end
end

-- Forgets the oldest keys: those that were claimed before `since` in microseconds, and as many as are more than `max_keys` or have more than `max_bytes`
-- together; up to `steps`. Returns how many.
local function forget_oldest(ages, sizes, since, max_keys, max_bytes, steps)
  local forgotten = 0
  while forgotten < steps do
    local oldest = redis.call('ZRANGE', ages, 0, 0, 'WITHSCORES')
    if not oldest[1] then
      break
    end
    local too_many = redis.call('ZCARD', ages) > max_keys
      or (tonumber(redis.call('HGET', sizes, '') or 0) > max_bytes)
    if not too_many and tonumber(oldest[2]) > since then
      break
    end
    forget_key(ages, sizes, oldest[1])
    forgotten = forgotten + 1
  end
  return forgotten
end

local function first_claim(keys, args, now, message_id)
  redis.call('HSET', keys[1], 'h', args[1], 'm', message_id, 's', 'r', 't', args[3], 'l', text_of(now + args[4]))
  redis.call('HDEL', keys[1], 'r')
  redis.call('PEXPIRE', keys[1], args[5])
  redis.call('ZADD', keys[2], text_of(now_us()), keys[1])
  return {'first', message_id}
end

-- Claims a key. KEYS: the key's hash, the ages, the sizes. ARGV: request hash, message id, token, lease in ms, how long a key is remembered in
-- ms, most keys, most bytes of large receipts. Returns the state, and the message id or the receipt.
local function claim_key(keys, args)
  local now = now_ms()
  local known = redis.call('HMGET', keys[1], 'h', 'm', 's', 'l', 'r')
  if not known[1] then
    forget_oldest(keys[2], keys[3], now_us() - args[5] * 1000, args[6] - 1, tonumber(args[7]), 100)
    return first_claim(keys, args, now, args[2])
  end
  local is_live = tonumber(known[4]) > now
  if known[1] ~= args[1] then
    return {'reused'}
  elseif known[3] == 'd' then
    return {'done', known[5]}
  elseif known[3] == 'p' then
    -- A claimer that has ended since waits for no acknowledgements.
    return {is_live and 'published' or 'done', known[5]}
  elseif known[3] == 'r' and is_live then
    return {'running'}
  end
  -- It may have been sent all the same.
  return first_claim(keys, args, now, known[2])
end

-- Looks at a key without a claim. KEYS: the key's hash. ARGV: request hash. Returns as claim_key does, 'idle' if none runs.
local function look_at_key(keys, args)
  local known = redis.call('HMGET', keys[1], 'h', 's', 'l', 'r')
  if not known[1] then
    return {'idle'}
  elseif known[1] ~= args[1] then
    return {'reused'}
  elseif known[2] == 'd' then
    return {'done', known[4]}
  end
  local is_live = tonumber(known[3]) > now_ms()
  if known[2] == 'p' then
    return {is_live and 'published' or 'done', known[4]}
  end
  return {known[2] == 'r' and is_live and 'running' or 'idle'}
end

-- Notes how far a claim is. KEYS: the key's hash, the ages, the sizes. ARGV: token, state, receipt, lease in ms, from how many bytes on a
-- receipt is large, most bytes of those. Returns 0 if the claim is somebody else's by now.
local function note_claim(keys, args)
  local known = redis.call('HMGET', keys[1], 't', 's')
  if known[1] ~= args[1] or known[2] == 'd' then
    return 0
  end
  redis.call('HSET', keys[1], 's', args[2], 'r', args[3], 'l', text_of(now_ms() + args[4]))
  local bytes = #args[3]
  if args[2] == 'd' and bytes >= tonumber(args[5]) then
    redis.call('HSET', keys[3], keys[1], bytes)
    redis.call('HINCRBY', keys[3], '', bytes)
    forget_oldest(keys[2], keys[3], -1, math.huge, tonumber(args[6]), 100)
  end
  return 1
end

-- Gives a claim up: the next one is the first, unless it was published. KEYS: the key's hash. ARGV: token.
local function release_claim(keys, args)
  local known = redis.call('HMGET', keys[1], 't', 's')
  if known[1] == args[1] and known[2] ~= 'd' then
    redis.call('HSET', keys[1], 's', known[2] == 'p' and 'd' or 'i')
  end
  return 1
end

-- Renews the leases of claims. KEYS: the keys' hashes. ARGV: lease in ms, the tokens.
local function renew_claims(keys, args)
  local ends_at = text_of(now_ms() + args[1])
  for index, key in ipairs(keys) do
    if redis.call('HGET', key, 't') == args[index + 1] then
      redis.call('HSET', key, 'l', ends_at)
    end
  end
  return 1
end

-- Forgets some of the keys whose time is over. KEYS: the ages, the sizes. ARGV: how long a key is remembered in ms, how many at most. Returns
-- how many.
local function sweep_keys(keys, args)
  return forget_oldest(keys[1], keys[2], now_us() - args[1] * 1000, math.huge, math.huge, tonumber(args[2]))
end

redis.register_function('claim_key_@', claim_key)
redis.register_function{function_name = 'look_at_key_@', callback = look_at_key, flags = {'no-writes'}}
redis.register_function('note_claim_@', note_claim)
redis.register_function('release_claim_@', release_claim)
redis.register_function('renew_claims_@', renew_claims)
redis.register_function('sweep_keys_@', sweep_keys)

