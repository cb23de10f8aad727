-- What every script that reads or writes history begins with.
--
-- The partition is a hash: `epoch`, `clock`, `since` (when the epoch began), `server` (the run of the server that it
-- lives on), and `sampled` (when the last sample was taken). The samples are a sorted set: the clock at some times, in ms.

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A whole number as Redis writes it, however large. (Lua's own way, and Redis' for a number among the arguments of a
-- command, print a floating point number, which takes longer than many a command.)
local function text(number)
  return string.format('%d', number)
end

-- Whether a run may lack something that the known one answered. A `+` behind a run tells that no later one does. A
-- publisher that does not say, or did not, what it publishes to is no reason.
local function may_lack(server, known)
  if server == '' or known == '' then return false end
  if server == known or server .. '+' == known or server == known .. '+' then return false end
  return string.sub(server, -1) ~= '+' or string.sub(known, -1) ~= '+'
end

-- The partition's epoch and clock, and when the last sample was taken. The epoch is renewed when there is none, when
-- the store is of another run of a server, and when it is behind what a node has seen of it: then it may have lost
-- something.
-- seen: { server, epoch, clock, new epoch }
local function standing(partition, samples, now, seen)
  local state = redis.call('HMGET', partition, 'epoch', 'clock', 'server', 'sampled')
  local epoch, clock, server = state[1], tonumber(state[2] or '0'), state[3] or ''
  local behind = epoch == seen.epoch and clock < seen.clock
  if not epoch or behind or may_lack(seen.server, server) then
    if not epoch then
      redis.call('DEL', samples)
      redis.call('ZADD', samples, now, text(clock))
    end
    epoch = seen.fresh
    redis.call('HSET', partition, 'epoch', epoch, 'clock', text(clock), 'server', seen.server,
      'since', text(now))
  elseif seen.server ~= '' and server ~= seen.server and server ~= seen.server .. '+' then
    redis.call('HSET', partition, 'server', seen.server)
  end
  return epoch, clock, tonumber(state[4] or '0')
end

-- What a topic may have had before this clock is forgotten with its record.
local function horizon(samples, now, lifetime, clock)
  local first = redis.call('ZRANGE', samples, now - lifetime, '+inf', 'BYSCORE', 'LIMIT', 0, 1)
  return tonumber(first[1] or clock)
end

-- Remembers the clock once a minute.
local function sample(partition, samples, now, lifetime, clock, sampled)
  if now - sampled < 60000 and now >= sampled then return end
  redis.call('ZADD', samples, now, text(clock))
  redis.call('ZREMRANGEBYSCORE', samples, '-inf', '(' .. text(now - 2 * lifetime))
  redis.call('HSET', partition, 'sampled', text(now))
end
