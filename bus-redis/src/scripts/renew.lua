-- Prolongs a node's lease, or begins one. KEYS and ARGV: the first four and the first three of claim.lua.
-- Answers 1 when it is the lease that was renewed before.
local begins = take_lease(ARGV[1], ARGV[2], ARGV[3])
local unknown = redis.call('SREM', KEYS[4], ARGV[1]) == 1
return (begins or unknown) and 0 or 1
