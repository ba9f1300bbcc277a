-- Idempotency keys. The value of one is a string: the request's hash (32 bytes), the message id (16), the token of the claim (16), the state (1: r
-- running, p published, d done, i idle: given up), the end of the lease in ms (13 digits), the length of the receipt (8 digits), the receipt. A
-- zset has the keys by the time of their claim in microseconds, a hash the bytes of large receipts, with their sum under ''.
local TOKEN, STATE, LEASE = 48, 64, 65

local function parse_key(value)
  local length = tonumber(string.sub(value, 79, 86))
  return {
    hash = string.sub(value, 1, 32),
    message_id = string.sub(value, 33, 48),
    state = string.sub(value, 65, 65),
    lease = tonumber(string.sub(value, 66, 78)),
    receipt = string.sub(value, 87, 86 + length),
  }
end

-- What follows the token.
local function progress(state, lease, receipt)
  return string.format('%s%013.0f%08d', state, lease, #receipt) .. receipt
end

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
      or (max_bytes < math.huge and tonumber(redis.call('HGET', sizes, '') or 0) > max_bytes)
    if not too_many and tonumber(oldest[2]) > since then
      break
    end
    forget_key(ages, sizes, oldest[1])
    forgotten = forgotten + 1
  end
  return forgotten
end

local function first_claim(keys, args, now, message_id)
  local value = args[1] .. message_id .. args[3] .. progress('r', now + args[4], '')
  redis.call('SET', keys[1], value, 'PX', args[5])
  redis.call('ZADD', keys[2], text_of(now_us()), keys[1])
  return {'first', message_id}
end

-- Claims a key. KEYS: the key's value, the ages, the sizes. ARGV: request hash, message id, token, lease in ms, how long a key is remembered in
-- ms, most keys. Returns the state, and the message id or the receipt.
local function claim_key(keys, args)
  local now = now_ms()
  local value = redis.call('GET', keys[1])
  if not value then
    if redis.call('ZCARD', keys[2]) >= tonumber(args[6]) then
      forget_oldest(keys[2], keys[3], now_us() - args[5] * 1000, args[6] - 1, math.huge, 100)
    end
    return first_claim(keys, args, now, args[2])
  end
  local known = parse_key(value)
  local is_live = known.lease > now
  if known.hash ~= args[1] then
    return {'reused'}
  elseif known.state == 'd' then
    return {'done', known.receipt}
  elseif known.state == 'p' then
    -- A claimer that has ended since waits for no acknowledgements.
    return {is_live and 'published' or 'done', known.receipt}
  elseif known.state == 'r' and is_live then
    return {'running'}
  end
  -- It may have been sent all the same.
  return first_claim(keys, args, now, known.message_id)
end

-- Looks at a key without a claim. KEYS: the key's value. ARGV: request hash. Returns as claim_key does, 'idle' if none runs.
local function look_at_key(keys, args)
  local value = redis.call('GET', keys[1])
  if not value then
    return {'idle'}
  end
  local known = parse_key(value)
  local is_live = known.lease > now_ms()
  if known.hash ~= args[1] then
    return {'reused'}
  elseif known.state == 'd' or known.state == 'p' then
    return {(known.state == 'd' or not is_live) and 'done' or 'published', known.receipt}
  end
  return {known.state == 'r' and is_live and 'running' or 'idle'}
end

-- The state of a key, if this claim has it.
local function state_of(key, token)
  local text = redis.call('GETRANGE', key, TOKEN, STATE)
  return string.sub(text, 1, 16) == token and string.sub(text, 17) or nil
end

-- Notes how far a claim is. KEYS: the key's value, the ages, the sizes. ARGV: token, state, receipt, lease in ms, from how many bytes on a
-- receipt is large, most bytes of those. Returns 0 if the claim is somebody else's by now.
local function note_claim(keys, args)
  local state = state_of(keys[1], args[1])
  if not state or state == 'd' then
    return 0
  end
  local is_done = args[2] == 'd'
  redis.call('SETRANGE', keys[1], STATE, progress(args[2], is_done and 0 or now_ms() + args[4], args[3]))
  local bytes = #args[3]
  if is_done and bytes >= tonumber(args[5]) then
    redis.call('HSET', keys[3], keys[1], bytes)
    redis.call('HINCRBY', keys[3], '', bytes)
    forget_oldest(keys[2], keys[3], -1, math.huge, tonumber(args[6]), 100)
  end
  return 1
end

-- Gives a claim up: the next one is the first, unless it was published. KEYS: the key's value. ARGV: token.
local function release_claim(keys, args)
  local state = state_of(keys[1], args[1])
  if state and state ~= 'd' then
    redis.call('SETRANGE', keys[1], STATE, state == 'p' and 'd' or 'i')
  end
  return 1
end

-- Renews the leases of claims. KEYS: the keys' values. ARGV: lease in ms, the tokens.
local function renew_claims(keys, args)
  local ends_at = string.format('%013.0f', now_ms() + args[1])
  for index, key in ipairs(keys) do
    if state_of(key, args[index + 1]) then
      redis.call('SETRANGE', key, LEASE, ends_at)
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
register_frugal('note_claim_@', note_claim)
register_frugal('release_claim_@', release_claim)
register_frugal('renew_claims_@', renew_claims)
register_frugal('sweep_keys_@', sweep_keys)

