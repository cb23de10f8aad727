-- Ends claims of a lease that has run out.
--
-- KEYS: 2 the lease's claims, then the users of each claim's topic.
-- ARGV: topic and user of each claim.
-- Answers 1 for each claim by whose end its user is gone from the topic.

if lives(milliseconds()) then return {} end

local answer, key = {}, 3
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
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
return answer
