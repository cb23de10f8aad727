-- The secret that all nodes share. KEYS: 1 the secret. ARGV: 1 what it is to be where there is none.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
