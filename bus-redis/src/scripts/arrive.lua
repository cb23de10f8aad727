-- Told by a node before anything else when it comes from another server, which has answered publications of it.
--
-- KEYS: 1 the partition, 2 its samples.
-- ARGV: 1 which server this is, 2 and 3 the highest epoch and clock that the node has seen, 4 a new epoch, 5 PUBLISH or
--       SPUBLISH, 6 the channel by which all links end, 7 how many ms ago the last publication was answered there.

local now = milliseconds()
local epoch = standing(KEYS[1], KEYS[2], now,
  { server = ARGV[1], epoch = ARGV[2], clock = tonumber(ARGV[3]), fresh = ARGV[4] })
local age = now - tonumber(redis.call('HGET', KEYS[1], 'since') or '0')

-- What was answered there before this epoch began is covered by the gap that all tell at its beginning. What came later
-- was not heard by those who were here already.
if epoch ~= ARGV[4] and (age < 0 or tonumber(ARGV[7]) <= age) then
  redis.call('HSET', KEYS[1], 'epoch', ARGV[4], 'since', text(now))
  redis.call(ARGV[5], ARGV[6], '')
end
