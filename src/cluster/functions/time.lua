-- The engine's time in microseconds.
local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The engine's time in milliseconds.
local function now_ms()
  return math.floor(now_us() / 1000)
end

-- Registers a function that gives memory back, or needs next to none: it runs though the engine has none left.
local function register_frugal(name, callback)
  redis.register_function{function_name = name, callback = callback, flags = {'allow-oom'}}
end

-- Returns a whole number as text, which `..` would write as 1.7e+15.
local function text_of(number)
  return string.format('%.0f', number)
end

-- The numbers in the middle of a frame: that of the change of what the room retains, and the sequence and the number of a message of its history; 0: none.
local function numbers_of(change, sequence, number)
  return struct.pack('>I8', change) .. (sequence or string.rep('\0', 8)) .. struct.pack('>I8', number or 0)
end
