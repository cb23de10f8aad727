-- Prolongs a lease that lives, or begins one. ARGV: 2 its time in ms, 3 whether it may begin: 1 or 0.
-- Answers 1 when it lives.
local now = milliseconds()
if ARGV[3] == '0' and not lives(now) then return 0 end
redis.call('ZADD', KEYS[1], string.format('%d', now + ARGV[2]), ARGV[1])
return 1
