-- Prolongs a node's lease. KEYS: 1 the leases. ARGV: 1 the node, 2 the lease in ms.
-- Answers 0 when it has none or it has run out.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not lease or tonumber(lease) <= now then return 0 end
redis.call('ZADD', KEYS[1], string.format('%d', now + ARGV[2]), ARGV[1])
return 1
