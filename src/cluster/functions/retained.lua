-- Retained values. The hash of a room has: n the number of the last change, b the bytes of all values, and of each event 'h' .. event the
-- value's end in ms (0: none), its bytes, the number of its change and its caller, and 'v' .. event the value; 'i' .. event the message id (16 bytes)
-- and the number of the last change by an emit that may come again.

-- How long the number of a room without values is kept, in ms.
local NUMBER_KEPT = 600000

local function remove_value(key, event, bytes)
  redis.call('HDEL', key, 'h' .. event, 'v' .. event, 'i' .. event)
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

-- An emit, as functions have it: 1 the channel, 2 and 3 the frame before and after the numbers that are put in, and, if something is kept of it, 4 the
-- event of the value that is to be retained (empty: none), 5 '1' to keep it or '0' to take the one away that is there, 6 its time to live in ms (0: none), 7 its bytes, 8 the most values, 9 the most
-- bytes of a room, 10 the caller, 11 the value, 12 the message id if it may come again, or ''; if it is kept in the room's history, what `append_message` has from 13
-- on. All functions that publish one have, first of their KEYS, the room's hash, the ends, the shares, the hash of the event's collapsed emits in
-- the room and the sums of all, and those of `append_message`.
local function emit_of(args, first)
  local emit = {}
  for index = first, #args do
    emit[#emit + 1] = args[index]
  end
  return emit
end

-- Whether an emit retains a value, or takes one away.
local function is_change(emit)
  return emit[4] and emit[4] ~= ''
end

-- The bytes, the caller and the number of an event's value, if there is one.
local function value_of(key, event)
  local head = redis.call('HGET', key, 'h' .. event)
  if head then
    local bytes, number, caller = string.match(head, '^%d+ (%d+) (%d+) (.*)$')
    return tonumber(bytes), caller, number
  end
  return nil
end

-- Why the value of an emit cannot be kept: -1: too many values, -2: too many bytes; nil: it can.
local function problem_of(keys, emit)
  if emit[5] ~= '1' then
    return nil
  end
  local function problem()
    local before = value_of(keys[1], emit[4])
    if not before and redis.call('ZCARD', keys[2]) >= tonumber(emit[8]) then
      return -1
    elseif tonumber(redis.call('HGET', keys[1], 'b') or 0) - (before or 0) + emit[7] > tonumber(emit[9]) then
      return -2
    end
    return nil
  end
  if problem() then
    sweep_entries(keys[2], keys[3], now_ms(), 1000, drop_value)
    return problem()
  end
  return nil
end

-- Keeps the value of an emit in place of the one before, or takes that away. Returns the number of the change: if the emit comes again and its value is
-- there still, that of the first time; 0: nothing is there that it could take away, maybe because it has come before.
local function change_value(keys, emit)
  local event, is_kept, bytes, caller, id = emit[4], emit[5] == '1', tonumber(emit[7]), emit[10], emit[12]
  local old_bytes, old_caller, old_number = value_of(keys[1], event)
  if not is_kept and not old_bytes then
    return 0
  elseif id ~= '' and old_bytes and redis.call('HGET', keys[1], 'i' .. event) == id .. old_number then
    return tonumber(old_number)
  end
  if old_caller and (not is_kept or old_caller ~= caller) then
    remove_entry(keys[2], keys[3], member_of(keys[1], event, old_caller), old_caller)
  end
  local number = next_number(keys[1])
  redis.call('HSET', keys[1], 'n', text_of(number))
  if is_kept then
    local ends_at = emit[6] == '0' and '0' or text_of(now_ms() + emit[6])
    add_entry(keys[2], keys[3], member_of(keys[1], event, caller), caller, ends_at == '0' and '+inf' or ends_at)
    local head = table.concat({ends_at, bytes, text_of(number), caller}, ' ')
    redis.call('HSET', keys[1], 'h' .. event, head, 'v' .. event, emit[11])
    if id ~= '' then
      redis.call('HSET', keys[1], 'i' .. event, id .. text_of(number))
    end
    redis.call('HINCRBY', keys[1], 'b', bytes - (old_bytes or 0))
    redis.call('PERSIST', keys[1])
  else
    remove_value(keys[1], event, old_bytes or 0)
  end
  return number
end

-- Notes a change for the emits that wait for the end of a collapse window and came before it, that is, before the order if one is given: their values
-- are not kept. The field '' of the topic has the last order of those; it is there no longer than something waits.
local function note_change(topic, sums, order)
  if redis.call('EXISTS', topic) == 1 then
    local last = tonumber(order or redis.call('HGET', sums, 'o') or 0)
    if last > tonumber(redis.call('HGET', topic, '') or 0) then
      redis.call('HSET', topic, '', text_of(last))
    end
  end
end

-- Keeps what is to be kept of an emit, and publishes it with the numbers of that. `order`: that of an emit that was deferred. It was
-- accepted, so it is published even if its value is not kept: because a later one was (`is_outdated`), or the room keeps too much by now. Returns how
-- many received it, or why it was rejected.
local function publish_emit(keys, emit, order, is_outdated)
  local change, sequence, number = 0, nil, nil
  local changes = is_change(emit) and not is_outdated
  local problem = changes and problem_of(keys, emit)
  if problem and not order then
    return problem
  end
  -- First, since an engine may forbid the commands of streams.
  if emit[13] then
    sequence, number = append_message(keys, emit)
  end
  if changes and not problem then
    note_change(keys[4], keys[5], order)
    change = change_value(keys, emit)
  end
  return redis.call('PUBLISH', emit[1], emit[2] .. numbers_of(change, sequence, number) .. emit[3])
end

-- Publishes an emit of which something is kept, or that takes a value away. ARGV: the emit. Returns how many received it; -1: too many values, -2: too many bytes.
local function keep(keys, args)
  return publish_emit(keys, emit_of(args, 1))
end

-- Removes some of the values that have ended. KEYS: the ends, the shares. ARGV: how many at most. Returns how many.
local function sweep_retained(keys, args)
  return sweep_entries(keys[1], keys[2], now_ms(), args[1], drop_value)
end

redis.register_function('keep_@', keep)
register_frugal('take_retained_@', keep)
register_frugal('sweep_retained_@', sweep_retained)

