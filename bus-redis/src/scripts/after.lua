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
local known = redis.call('HMGET', KEYS[3], 'clock', 'trimmed', 'age')
local answer = { epoch, clock, 0, 0 }

-- No record: nothing was published for as long as records live.
if not known[1] then
  if asked >= horizon(KEYS[2], now, tonumber(ARGV[5]), clock) then answer[3] = 1 end
  return answer
end

local last, trimmed, age = tonumber(known[1]), tonumber(known[2]), tonumber(known[3])
local at, count, bytes, ended = asked, 0, 0, 0

local function take(entry)
  local id, message = entry[1], entry[2][4]
  if now - tonumber(entry[2][2]) >= age then
    trimmed = math.max(trimmed, tonumber(string.match(id, '^%d+')))
  elseif count == limit then
    ended = 1
  elseif count > 0 and bytes + #message > max_bytes then
    ended = 2
  else
    count, bytes = count + 1, bytes + #message
    answer[#answer + 1] = id
    answer[#answer + 1] = message
  end
  if ended == 0 then at = tonumber(string.match(id, '^%d+')) end
end

while at < last and ended == 0 do
  local entries = redis.call('XRANGE', KEYS[4], string.format('%.0f-0', at + 1), '+', 'COUNT', 32)
  -- What the record tells of and the stream has no more is too old.
  if #entries == 0 then
    trimmed, at = last, last
  end
  for _, entry in ipairs(entries) do
    if ended == 0 then take(entry) end
  end
end
if asked >= trimmed then answer[3] = 1 end
answer[4] = ended
return answer
