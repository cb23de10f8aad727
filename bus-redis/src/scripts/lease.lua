-- Prolongs a node's lease, or begins one; answers whether it began.
-- Who comes late begins anew: what it had before is left to expire. KEYS 1 to 3 are those of claim.lua.
local function take_lease(node, before, duration)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local lease = redis.call('ZSCORE', KEYS[1], node)
  local begins = not lease or tonumber(lease) <= now
  if lease and begins and redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('RENAME', KEYS[2], KEYS[3])
    redis.call('ZADD', KEYS[1], lease, before)
  end
  redis.call('ZADD', KEYS[1], string.format('%d', now + duration), node)
  return begins
end

