-- Entries that belong to a caller and end: a zset has the end of each, and a hash counts those of each caller. A member of the zset is the key
-- that has the entry, the entry's field there and the caller, with line feeds between them: no name has one.

local function member_of(key, field, caller)
  return key .. '\n' .. field .. '\n' .. caller
end

local function add_entry(ends, shares, member, caller, score)
  if redis.call('ZADD', ends, score, member) == 1 then
    redis.call('HINCRBY', shares, caller, 1)
  end
end

local function remove_entry(ends, shares, member, caller)
  if redis.call('ZREM', ends, member) == 1 and redis.call('HINCRBY', shares, caller, -1) <= 0 then
    redis.call('HDEL', shares, caller)
  end
end

-- Removes up to `steps` entries that have ended. `drop(key, field, now)` removes what the key has of one. Returns how many ended.
local function sweep_entries(ends, shares, now, steps, drop)
  local ended = redis.call('ZRANGEBYSCORE', ends, '-inf', text_of(now), 'LIMIT', 0, steps)
  for _, member in ipairs(ended) do
    local key, field, caller = string.match(member, '^([^\n]*)\n([^\n]*)\n(.*)$')
    remove_entry(ends, shares, member, caller)
    drop(key, field, now)
  end
  return #ended
end

-- Memberships and grants: a hash of a user has, by room, the end in milliseconds and the caller.

local function drop_user_room(key, room, now)
  local value = redis.call('HGET', key, room)
  -- It may have been put again since, by another caller.
  if value and tonumber(string.match(value, '^%d+')) <= now then
    redis.call('HDEL', key, room)
  end
end

-- Puts a user and a room together. KEYS: the user's hash, the ends, the shares. ARGV: room, time to live in ms, most entries, most of one user,
-- caller. Returns -1, or how many ms after now the first entry ends if there are too many.
local function put_user_room(keys, args)
  local now = now_ms()
  local room, caller = args[1], args[5]
  local before = redis.call('HGET', keys[1], room)
  if not before then
    local function is_full()
      return redis.call('ZCARD', keys[2]) >= tonumber(args[3]) or redis.call('HLEN', keys[1]) >= tonumber(args[4])
    end
    if is_full() then
      sweep_entries(keys[2], keys[3], now, 1000, drop_user_room)
      if is_full() then
        local first = redis.call('ZRANGE', keys[2], 0, 0, 'WITHSCORES')
        return first[2] and math.max(0, tonumber(first[2]) - now) or 0
      end
    end
  else
    local old = string.match(before, ' (.*)$')
    if old ~= caller then
      remove_entry(keys[2], keys[3], member_of(keys[1], room, old), old)
    end
  end
  local ends_at = text_of(now + args[2])
  add_entry(keys[2], keys[3], member_of(keys[1], room, caller), caller, ends_at)
  redis.call('HSET', keys[1], room, ends_at .. ' ' .. caller)
  if tonumber(redis.call('PEXPIRETIME', keys[1])) < now + args[2] then
    redis.call('PEXPIREAT', keys[1], ends_at)
  end
  return -1
end

local function take_user_room(keys, room)
  local before = redis.call('HGET', keys[1], room)
  if before then
    local caller = string.match(before, ' (.*)$')
    remove_entry(keys[2], keys[3], member_of(keys[1], room, caller), caller)
    redis.call('HDEL', keys[1], room)
  end
end

-- Removes some of what has ended. KEYS: the ends, the shares. ARGV: how many at most. Returns how many.
local function sweep_user_rooms(keys, args)
  return sweep_entries(keys[1], keys[2], now_ms(), args[1], drop_user_room)
end

local function publish(channel, head, tail)
  return {redis.call('PUBLISH', channel, head .. numbers_of(0) .. tail)}
end

-- The same as put_user_room, and publishes a frame: notes and frames have one order. ARGV besides: channel, the frame's head, its tail. Returns
-- how many received it; a negative number: nothing was put, and the first entry ends so many ms and one after now.
local function put_and_publish(keys, args)
  local first = put_user_room(keys, args)
  if first >= 0 then
    return {-1 - first}
  end
  return publish(args[6], args[7], args[8])
end

-- Takes a user and a room apart, and publishes a frame, likewise. KEYS: the user's hash, the ends, the shares. ARGV: room, channel, the frame's head,
-- its tail.
local function take_and_publish(keys, args)
  take_user_room(keys, args[1])
  return publish(args[2], args[3], args[4])
end

redis.register_function('put_and_publish_@', put_and_publish)
register_frugal('take_and_publish_@', take_and_publish)
redis.register_function('put_user_room_@', put_user_room)
register_frugal('sweep_user_rooms_@', sweep_user_rooms)

