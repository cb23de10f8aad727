-- States how many connections of users a node has in topics.
--
-- KEYS: 1 the leases, 2 the node's claims, 3 where claims go whose lease had run out, 4 the nodes whose lease has not
--       been renewed since it began; then each topic's users.
-- ARGV: 1 the node, 2 the name of what it had before its lease ran out, 3 the lease in ms; then for each claim:
--       the topic, the user, the connections.
-- Answers the user's connections over all nodes before and after each claim.

if take_lease(ARGV[1], ARGV[2], ARGV[3]) then redis.call('SADD', KEYS[4], ARGV[1]) end

local answer, key = {}, 5
for a = 4, #ARGV, 3 do
  local users, user, connections = KEYS[key], ARGV[a + 1], tonumber(ARGV[a + 2])
  local field = ARGV[a] .. ' ' .. user
  local own = tonumber(redis.call('HGET', KEYS[2], field) or '0')
  local before = tonumber(redis.call('HGET', users, user) or '0')
  local after = math.max(before - own + connections, 0)
  if connections == 0 then
    redis.call('HDEL', KEYS[2], field)
  elseif connections ~= own then
    redis.call('HSET', KEYS[2], field, string.format('%d', connections))
  end
  if after == 0 then
    redis.call('HDEL', users, user)
  elseif after ~= before then
    redis.call('HSET', users, user, string.format('%d', after))
  end
  answer[#answer + 1] = before
  answer[#answer + 1] = after
  key = key + 1
end
return answer
