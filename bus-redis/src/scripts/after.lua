-- What a topic has kept after a clock, oldest first.
--
-- KEYS: 1 the partition, 2 its samples, 3 the topic's record, 4 its stream.
-- ARGV: 1 which server this is, 2 and 3 the highest epoch and clock that the asker has seen, 4 a new epoch,
--       5 how long a record outlives its last message in ms, 6 the clock, 7 how many messages at most,
--       8 after how many bytes to stop.
-- Answers epoch, clock, 1 when nothing from the asked clock on is missing, what ended the page (0 nothing, 1 the
-- count, 2 the bytes), then "CLOCK-OFFSET" and the message of each.

local now = milliseconds()
local epoch, clock = standing(KEYS[1], KEYS[2], now,
  { server = ARGV[1], epoch = ARGV[2], clock = tonumber(ARGV[3]), fresh = ARGV[4] })
local asked, limit, max_bytes = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local known = redis.call('HMGET', KEYS[3], 'offset', 'clock', 'count', 'age', 'base', 'trimmed')
local answer = { epoch, clock, 1, 0 }

-- No record: nothing was published for as long as records live.
if not known[1] then
  if asked < horizon(KEYS[2], now, tonumber(ARGV[5]), clock) then answer[3] = 0 end
  return answer
end

local last, age = tonumber(known[2]), tonumber(known[4])
-- What is over the count may still be there, and is not shown.
local hidden = tonumber(known[1]) - tonumber(known[3])
local base, trimmed = tonumber(known[5]), tonumber(known[6])
local at, count, bytes, ended = asked, 0, 0, 0

-- Whether nothing was dropped between the asked clock and this, the first message found after it.
local function follows(offset)
  if offset == base then return asked >= trimmed end
  return #redis.call('XREVRANGE', KEYS[4], text(asked), '-', 'COUNT', 1) == 1
end

local function take(entry)
  local message, c, o = entry[2][4], string.match(entry[1], '^(%d+)-(%d+)$')
  if at == asked and not follows(tonumber(o)) then answer[3] = 0 end
  if tonumber(o) <= hidden or now - tonumber(entry[2][2]) >= age then
    answer[3] = 0
  elseif count == limit then
    ended = 1
  elseif count > 0 and bytes + #message > max_bytes then
    ended = 2
  else
    count, bytes = count + 1, bytes + #message
    answer[#answer + 1] = entry[1]
    answer[#answer + 1] = message
  end
  at = tonumber(c)
end

while at < last and ended == 0 do
  local entries = redis.call('XRANGE', KEYS[4], text(at + 1), '+', 'COUNT', 32)
  -- What the record tells of and the stream has no more was too old.
  if #entries == 0 then
    answer[3], at = 0, last
  end
  for _, entry in ipairs(entries) do
    if ended == 0 then take(entry) end
  end
end
answer[4] = ended
return answer
