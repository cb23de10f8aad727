-- The lease that ran out first, if any did.
return redis.call('ZRANGE', KEYS[1], '-inf', string.format('%d', milliseconds()), 'BYSCORE', 'LIMIT', 0, 1)
