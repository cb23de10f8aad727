-- What every script that reads or writes history begins with.
--
-- The partition is a hash: `epoch`, `clock`, `server` (which server it lives on, where that can change) and
-- `sampled` (when the last sample was taken). The samples are a sorted set: the clock at some times, in ms.

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The partition's epoch and clock. The epoch is renewed when there is none, when the store moved to another
-- server, and when it is behind what a node has seen of it: then it may have lost something.
-- seen: { server, epoch, clock, new epoch }
local function standing(partition, samples, now, seen)
  local state = redis.call('HMGET', partition, 'epoch', 'clock', 'server')
  local epoch, clock, server = state[1], tonumber(state[2] or '0'), state[3]
  local moved = seen.server ~= '' and server ~= seen.server
  local behind = epoch == seen.epoch and clock < seen.clock
  if not epoch or moved or behind then
    if not epoch then
      redis.call('DEL', samples)
      redis.call('ZADD', samples, now, string.format('%.0f', clock))
    end
    epoch = seen.fresh
    redis.call('HSET', partition, 'epoch', epoch, 'clock', string.format('%.0f', clock), 'server', seen.server)
  end
  return epoch, clock
end

-- What a topic may have had before this clock is forgotten with its record.
local function horizon(samples, now, lifetime, clock)
  local first = redis.call('ZRANGE', samples, now - lifetime, '+inf', 'BYSCORE', 'LIMIT', 0, 1)
  return tonumber(first[1] or clock)
end
