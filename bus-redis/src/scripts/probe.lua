-- Proves the way from a command to a listener, through a write that a replica refuses. While it is there it restores
-- what a flush has taken and a node still knows.
--
-- KEYS: 1 the partition, 2 its samples, 3 the secret.
-- ARGV: 1 PUBLISH or SPUBLISH, 2 the link's own channel, 3 what is said in it, 4 which server this is, 5 and 6 the
--       highest epoch and clock that the node has seen (5 may be empty: none), 7 a new epoch, 8 the secret (may be empty).

redis.call('PERSIST', KEYS[1])
local answer = redis.call(ARGV[1], ARGV[2], ARGV[3])
if ARGV[8] ~= '' then redis.call('SET', KEYS[3], ARGV[8], 'NX') end
if ARGV[5] ~= '' then
  standing(KEYS[1], KEYS[2], milliseconds(),
    { server = ARGV[4], epoch = ARGV[5], clock = tonumber(ARGV[6]), fresh = ARGV[7] })
end
return answer
