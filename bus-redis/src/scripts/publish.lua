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
local epoch, clock, now, full, sampled, reserved

-- Nodes publish batches of which nothing is kept by MULTI, PERSIST of the partition, PUBLISHes and EXEC instead.

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
    epoch, clock, sampled = standing(partition, samples, now,
      { server = ARGV[2], epoch = ARGV[3], clock = tonumber(ARGV[4]), fresh = ARGV[5] })
    sample(partition, samples, now, lifetime, clock, sampled)
    -- Before anything is kept: should a step below fail, no clock is given twice.
    reserved = redis.call('HINCRBY', partition, 'clock', (#ARGV - 7) / 4)
  end
end

-- Drops what is too old. What is over the count goes by itself, some messages late; readers do not see it.
local function forget(record, stream, age)
  for _ = 1, 128 do
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if not first or now - tonumber(first[2][2]) < age then return end
    local at, offset = string.match(first[1], '^(%d+)-(%d+)$')
    redis.call('XTRIM', stream, 'MINID', '=', text(tonumber(at) + 1))
    redis.call('HSET', record, 'trimmed', at, 'base', text(tonumber(offset) + 1))
  end
end

-- Answers the message's offset as text.
local function keep(record, stream, message, count, age)
  clock = clock + 1
  local known = redis.call('HMGET', record, 'offset', 'clock', 'count', 'age', 'renewed')
  local offset = known[1] and tonumber(known[1]) + 1 or clock
  local o, c, n = text(offset), text(clock), text(now)
  local id, margin = c .. '-' .. o, math.min(tonumber(age), lifetime) / 8
  local added = known[1] and
    redis.pcall('XADD', stream, 'NOMKSTREAM', 'MAXLEN', '~', text(count + 1), id, 't', n, 'm', message)
  if type(added) == 'table' then
    -- It refuses what is not after its last: the partition's clock was lost, and the stream was not.
    if not string.find(added.err, 'ID specified', 1, true) then error(added) end
    added = false
  end
  if not added then
    -- The stream begins, or begins again: what was before is gone.
    local trimmed = text(math.min(tonumber(known[2] or horizon(samples, now, lifetime, clock - 1)), clock - 1))
    redis.call('DEL', stream)
    redis.call('XADD', stream, id, 't', n, 'm', message)
    redis.call('HSET', record, 'trimmed', trimmed, 'base', o)
  end
  if added and known[3] == count and known[4] == age and now - tonumber(known[5]) < margin then
    redis.call('HSET', record, 'offset', o, 'clock', c)
  else
    redis.call('HSET', record, 'offset', o, 'clock', c, 'count', count, 'age', age, 'renewed', n)
    redis.call('PEXPIRE', record, text(math.max(lifetime, 10 * age) + margin))
    redis.call('PEXPIRE', stream, text(age + margin + 1))
  end
  if offset % 64 == 0 then forget(record, stream, tonumber(age)) end
  return o
end

-- Publishes; answers how many listeners got it, and why it was refused where it was.
local function tell(channel, message)
  local told = redis.pcall(publish, channel, message)
  if type(told) == 'table' then return nil, told.err end
  return told
end

-- The receipt of the first message under this key, if there was one.
local function first_receipt(key)
  local first = redis.call('GET', key)
  if not first then return nil end
  local e, o, c, listeners = string.match(first, '^(%d+) (%d+) (%d+) (%d+)$')
  return e and { e, tonumber(o), tonumber(c), tonumber(listeners), 1 } or tonumber(first)
end

-- What one message is answered. The first under its key answers for all that repeat it.
local function answer(channel, message, retention, record, stream, receipt)
  local first = receipt and first_receipt(receipt)
  if first then return first end
  if retention == '' then
    local listeners, refused = tell(channel, message)
    if receipt and not refused then redis.call('SET', receipt, listeners, 'PX', window) end
    return refused or listeners
  end
  local count, age = string.match(retention, '^(%d+) (%d+)$')
  local offset = keep(record, stream, message, count, age)
  local c = text(clock)
  local listeners, refused = tell(channel, offset .. ' ' .. c .. ' ' .. epoch .. '\n' .. message)
  if refused then return refused end
  if receipt then
    redis.call('SET', receipt, epoch .. ' ' .. offset .. ' ' .. c .. ' ' .. listeners, 'PX', window)
  end
  return { epoch, tonumber(offset), clock, listeners, 0 }
end

local answers, key = {}, 3
for a = 8, #ARGV, 4 do
  local named = ARGV[a + 3] == '1'
  if ARGV[a + 2] == '' and not named then
    answers[#answers + 1] = answer(ARGV[a], ARGV[a + 1], '')
  elseif full then
    answers[#answers + 1] = full
    key = key + 3
  else
    -- What fails here fails alone.
    local done, told = pcall(answer, ARGV[a], ARGV[a + 1], ARGV[a + 2],
      KEYS[key], KEYS[key + 1], named and KEYS[key + 2])
    answers[#answers + 1] = (done or type(told) ~= 'table') and told or told.err
    key = key + 3
  end
end
if reserved and clock < reserved then redis.call('HSET', partition, 'clock', text(clock)) end
return answers
