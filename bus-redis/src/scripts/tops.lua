-- Where a partition and some of its topics stand, in one reading.
--
-- KEYS: 1 the partition, 2 its samples, then the topics' records.
-- ARGV: 1 which server this is, 2 and 3 the highest epoch and clock that the asker has seen, 4 a new epoch.
-- Answers epoch, clock, then offset and clock of each topic's last message.

local epoch, clock = standing(KEYS[1], KEYS[2], milliseconds(),
  { server = ARGV[1], epoch = ARGV[2], clock = tonumber(ARGV[3]), fresh = ARGV[4] })
local answer = { epoch, clock }
for k = 3, #KEYS do
  local top = redis.call('HMGET', KEYS[k], 'offset', 'clock')
  answer[#answer + 1] = tonumber(top[1] or '0')
  answer[#answer + 1] = tonumber(top[2] or '0')
end
return answer
