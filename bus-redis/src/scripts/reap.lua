-- Ends claims of a node whose lease has run out.
--
-- KEYS: 1 the leases, 2 the node's claims, 3 the nodes whose lease has not been renewed, then the users of each claim's topic.
-- ARGV: 1 the node, then topic and user of each claim.
-- Answers 1 for each claim by whose end its user is gone from the topic.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not lease or tonumber(lease) > now then return {} end

local answer, key = {}, 4
for a = 2, #ARGV, 2 do
  local users, user = KEYS[key], ARGV[a + 1]
  local field = ARGV[a] .. ' ' .. user
  local own = redis.call('HGET', KEYS[2], field)
  local gone = 0
  if own then
    redis.call('HDEL', KEYS[2], field)
    local after = tonumber(redis.call('HGET', users, user) or '0') - tonumber(own)
    if after > 0 then
      redis.call('HSET', users, user, string.format('%d', after))
    elseif redis.call('HDEL', users, user) == 1 then
      gone = 1
    end
  end
  answer[#answer + 1] = gone
  key = key + 1
end
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('SREM', KEYS[3], ARGV[1])
end
return answer
