-- KEYS: 1 the leases, by their ends. ARGV: 1 the lease.

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function lives(now)
  return tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0') > now
end
