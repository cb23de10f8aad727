-- Publishes messages of one partition, in order, as one step.
--
-- KEYS: 1 the partition, 2 its samples; then, for each message that is kept or has an idempotency key, three:
--       the topic's record, its stream, and the idempotency key's (the record again where there is none).
-- ARGV: 1 PUBLISH or SPUBLISH, 2 which server this is (may be empty), 3 and 4 the highest epoch and clock that the
--       publisher has seen (may be empty and 0), 5 a new epoch, should one be needed, 6 how long a record outlives
--       its last message, 7 how long an idempotency key is remembered; both in ms.
--       Then four for each message: the channel, the message, what to keep as "COUNT AGE_MS" (empty: nothing),
--       and 1 when it has an idempotency key.
-- Answers, for each message: how many listeners got it, or { epoch, offset, clock, listeners, 1 for a repeat }, or an
-- error as text. A repeat gets what the first got. On a replica nothing is published.

local publish, lifetime, window = ARGV[1], tonumber(ARGV[6]), ARGV[7]
local partition, samples = KEYS[1], KEYS[2]
local epoch, clock, now, full

-- The write that a replica refuses. What keeps nothing must pass although Redis is full, so its write asks for no memory.
if #KEYS == 2 then
  redis.call('PERSIST', partition)
else
  local answer = redis.pcall('HSETNX', partition, 'clock', '0')
  if type(answer) == 'table' and answer.err then
    if string.sub(answer.err, 1, 3) ~= 'OOM' then return answer end
    full = answer.err
    redis.call('PERSIST', partition)
  else
    now = milliseconds()
    epoch, clock = standing(partition, samples, now,
      { server = ARGV[2], epoch = ARGV[3], clock = tonumber(ARGV[4]), fresh = ARGV[5] })
  end
end

local function sample()
  local last = redis.call('HGET', partition, 'sampled')
  if last and now - tonumber(last) < 60000 and now >= tonumber(last) then return end
  redis.call('ZADD', samples, now, string.format('%.0f', clock))
  redis.call('ZREMRANGEBYSCORE', samples, '-inf', '(' .. string.format('%.0f', now - 2 * lifetime))
  redis.call('HSET', partition, 'sampled', string.format('%.0f', now))
end

-- Drops what is over the count or over the age; answers the clock of the last message dropped, and a time that the
-- oldest one left is not older than.
-- last: the clock of the message before this one.
local function trim(stream, count, age, trimmed, oldest, last)
  local length = redis.call('XLEN', stream)
  -- A stream ends by itself when all of it is too old.
  if length == 1 and last then trimmed = last end
  local over = length - count
  while over > 0 do
    local gone = redis.call('XRANGE', stream, '-', '+', 'COUNT', math.min(over, 64))
    trimmed = tonumber(string.match(gone[#gone][1], '^%d+'))
    redis.call('XTRIM', stream, 'MINID', '=', string.format('%.0f', trimmed + 1))
    over = over - #gone
  end
  while now - oldest >= age do
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if not first then return trimmed, now end
    oldest = tonumber(first[2][2])
    if now - oldest < age then return trimmed, oldest end
    trimmed = tonumber(string.match(first[1], '^%d+'))
    redis.call('XTRIM', stream, 'MINID', '=', string.format('%.0f', trimmed + 1))
  end
  return trimmed, oldest
end

local function keep(record, stream, message, count, age)
  sample()
  clock = redis.call('HINCRBY', partition, 'clock', 1)
  local known = redis.call('HMGET', record, 'offset', 'trimmed', 'oldest', 'clock')
  local offset = known[1] and tonumber(known[1]) + 1 or clock
  local trimmed = known[1] and tonumber(known[2]) or horizon(samples, now, lifetime, clock - 1)
  local oldest = known[1] and tonumber(known[3]) or now
  redis.call('XADD', stream, string.format('%.0f-%.0f', clock, offset), 't', string.format('%.0f', now), 'm', message)
  trimmed, oldest = trim(stream, count, age, trimmed, oldest, known[4] and tonumber(known[4]))
  redis.call('HSET', record, 'offset', string.format('%.0f', offset), 'clock', string.format('%.0f', clock),
    'trimmed', string.format('%.0f', trimmed), 'oldest', string.format('%.0f', oldest), 'age', string.format('%.0f', age))
  redis.call('PEXPIRE', record, string.format('%.0f', math.max(lifetime, 10 * age)))
  redis.call('PEXPIRE', stream, string.format('%.0f', math.max(age, 1)))
  return offset
end

-- The receipt of the first message under this key, if there was one.
local function first_receipt(key)
  local text = redis.call('GET', key)
  if not text then return nil end
  local e, o, c, listeners = string.match(text, '^(%d+) (%d+) (%d+) (%d+)$')
  return e and { e, tonumber(o), tonumber(c), tonumber(listeners), 1 } or tonumber(text)
end

local answers, key = {}, 3
for a = 8, #ARGV, 4 do
  local channel, message, retention, named = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3] == '1'
  local record, stream, receipt
  if retention ~= '' or named then
    record, stream, receipt = KEYS[key], KEYS[key + 1], KEYS[key + 2]
    key = key + 3
  end
  local answer
  if record and full then
    answer = full
  else
    answer = named and first_receipt(receipt)
  end
  if not answer then
    local remembered
    if retention ~= '' then
      local count, age = string.match(retention, '^(%d+) (%d+)$')
      local offset = keep(record, stream, message, tonumber(count), tonumber(age))
      local place = string.format('%.0f %.0f %s', offset, clock, epoch)
      answer = { epoch, offset, clock, redis.call(publish, channel, place .. '\n' .. message), 0 }
      remembered = string.format('%s %.0f %.0f %d', epoch, offset, clock, answer[4])
    else
      answer = redis.call(publish, channel, message)
      remembered = answer
    end
    if named then redis.call('SET', receipt, remembered, 'PX', window) end
  end
  answers[#answers + 1] = answer
end
return answers
