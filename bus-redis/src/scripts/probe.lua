-- Proves the way from a command to a listener, through a write that a replica refuses.
-- KEYS: 1 the partition. ARGV: 1 PUBLISH or SPUBLISH, 2 the link's own channel, 3 what is said in it.
redis.call('PERSIST', KEYS[1])
return redis.call(ARGV[1], ARGV[2], ARGV[3])
