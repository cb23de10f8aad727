-- States how many connections of users there are under a lease.
--
-- KEYS: 2 the lease's claims; then each topic's users.
-- ARGV: for each claim the topic, the user, the connections.
-- Answers the user's connections over all nodes before and after each claim; nothing when the lease does not live.

if not lives(milliseconds()) then return false end

local answer, key = {}, 3
for a = 2, #ARGV, 3 do
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
