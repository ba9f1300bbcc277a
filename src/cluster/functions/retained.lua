-- Retained values. The hash of a room has: n the number of the last change, b the bytes of all values, and of each event 'h' .. event the
-- value's end in ms (0: none), its bytes and its caller, 'v' .. event the value, and 'l' .. event the number of the event's last change.

-- How long the number of a room without values is kept, in ms.
local NUMBER_KEPT = 600000

local function remove_value(key, event, bytes)
  redis.call('HDEL', key, 'h' .. event, 'v' .. event, 'l' .. event)
  if redis.call('HINCRBY', key, 'b', 0 - bytes) <= 0 then
    redis.call('PEXPIRE', key, NUMBER_KEPT)
  end
end

local function drop_value(key, event, now)
  local head = redis.call('HGET', key, 'h' .. event)
  if head then
    local ends_at, bytes = string.match(head, '^(%d+) (%d+) ')
    if tonumber(ends_at) > 0 and tonumber(ends_at) <= now then
      remove_value(key, event, bytes)
    end
  end
end

-- The number of the next change: larger than those before, also if the engine has lost its data.
local function next_number(key)
  local last = tonumber(redis.call('HGET', key, 'n') or 0)
  return math.max(now_us(), last + 1)
end

-- Keeps a value in place of the one before, or takes that away, and publishes the frame with the number of the change in the middle. KEYS: the
-- room's hash, the ends, the shares. ARGV: event, '1' to keep, time to live in ms (0: none), bytes, most values, most bytes of a room, caller,
-- value, channel, the frame's head, its tail, the order of an emit that was deferred ('0': it was not): what was changed later stays, and the
-- frame has the number 0. Returns how many received it, and the number; {-1}: too many values, {-2}: too many bytes.
local function retain(keys, args)
  local now = now_ms()
  local event, bytes, caller = args[1], tonumber(args[4]), args[7]
  local is_kept = args[2] == '1'
  local function publish(number)
    return {redis.call('PUBLISH', args[9], args[10] .. struct.pack('>I8', number) .. args[11]), number}
  end
  if args[12] ~= '0' and tonumber(redis.call('HGET', keys[1], 'l' .. event) or 0) > tonumber(args[12]) then
    return publish(0)
  end
  local function before()
    local head = redis.call('HGET', keys[1], 'h' .. event)
    if head then
      local old_bytes, old_caller = string.match(head, '^%d+ (%d+) (.*)$')
      return tonumber(old_bytes), old_caller
    end
    return nil
  end
  local old_bytes, old_caller = before()
  if is_kept then
    local function problem()
      if not old_bytes and redis.call('ZCARD', keys[2]) >= tonumber(args[5]) then
        return -1
      elseif tonumber(redis.call('HGET', keys[1], 'b') or 0) - (old_bytes or 0) + bytes > tonumber(args[6]) then
        return -2
      end
      return nil
    end
    if problem() then
      sweep_entries(keys[2], keys[3], now, 1000, drop_value)
      old_bytes, old_caller = before()
      local still = problem()
      if still then
        return {still}
      end
    end
  end
  if old_caller and (not is_kept or old_caller ~= caller) then
    remove_entry(keys[2], keys[3], member_of(keys[1], event, old_caller), old_caller)
  end
  local number = next_number(keys[1])
  redis.call('HSET', keys[1], 'n', text_of(number))
  if is_kept then
    local ends_at = args[3] == '0' and '0' or text_of(now + args[3])
    add_entry(keys[2], keys[3], member_of(keys[1], event, caller), caller, ends_at == '0' and '+inf' or ends_at)
    redis.call('HSET', keys[1], 'h' .. event, ends_at .. ' ' .. bytes .. ' ' .. caller, 'v' .. event, args[8], 'l' .. event, text_of(number))
    redis.call('HINCRBY', keys[1], 'b', bytes - (old_bytes or 0))
    redis.call('PERSIST', keys[1])
  else
    remove_value(keys[1], event, old_bytes or 0)
    if old_bytes then
      redis.call('HSET', keys[1], 'l' .. event, text_of(number))
    end
  end
  return publish(number)
end

-- Removes some of the values that have ended. KEYS: the ends, the shares. ARGV: how many at most. Returns how many.
local function sweep_retained(keys, args)
  return sweep_entries(keys[1], keys[2], now_ms(), args[1], drop_value)
end

redis.register_function('retain_@', retain)
redis.register_function('sweep_retained_@', sweep_retained)

