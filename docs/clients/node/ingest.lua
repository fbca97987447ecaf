
local function backlog_of(length, framed, last, cursor, applied, trimmed)
  if last == cursor or length == 0 then return 0 end
  return math.max(1, length + trimmed + framed - applied)
end

local to_open = string.find(KEYS[3], '{%d+%.%d+}')
local c = redis.call('HMGET', KEYS[3], 'applied', 'cursor', 'trimmed', 'seal', 'closed', 'opened')
if c[4] and c[4] ~= '' then return {'SEALED', 0, c[4]} end
local session, first = tonumber(ARGV[2]), tonumber(ARGV[3])
local kept, last = redis.call('HGET', KEYS[2], ARGV[1]), 0
if kept then
  local kept_session, kept_last = string.match(kept, '^(%d+):(%d+):')
  if tonumber(kept_session) > session then return {'STALE', 0, ''} end
  if tonumber(kept_session) == session then last = tonumber(kept_last) end
end
if c[5] or to_open and c[6] ~= ARGV[8] then return {'MOVED', last, c[5] or ''} end
if first > last + 1 then
  if ARGV[4] ~= '1' then return {'GAP', last, ''} end
  last = first - 1
end
local stream, info = {}, redis.pcall('XINFO', 'STREAM', KEYS[1])
if not info.err then for i = 1, #info, 2 do stream[info[i]] = info[i + 1] end end
local tail, noted = stream['last-generated-id'] or '0-0', redis.call('HGET', KEYS[4], 'framed')
local framed = tonumber(noted or '0')
local room = tonumber(ARGV[5]) - backlog_of(stream['length'] or 0, framed, tail, c[2] or '0-0',
  tonumber(c[1] or '0'), tonumber(c[3] or '0'))
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local before, more, code, detail, number = last, 0, 'OK', '', first
for i = 9, #ARGV, 4 do
  local framed_here = ARGV[i] == '' and string.byte(ARGV[i + 2]) == 1
  local count = framed_here and tonumber(ARGV[i + 1]) or 1
  if count < 1 or count > 256 or count % 1 ~= 0 then count = 1 end
  if number > last then
    if count > room then
      code, detail = 'FULL', room > 0 and string.format('%.0f', room) or ''
      break
    end
    if count > 1 then
      local ms, sequence = string.match(tail, '^(%d+)-(%d+)$')
      ms, sequence = tonumber(ms), tonumber(sequence) + count
      if now > ms then ms, sequence = now, count - 1 end
      local id, n = string.format('%.0f-%.0f', ms, sequence), string.format('%.0f', count)
      tail = redis.call('XADD', KEYS[1], id, 'n', n, 'f', ARGV[i + 2])
    elseif ARGV[i + 3] == '' then
      tail = redis.call('XADD', KEYS[1], '*', 'a', ARGV[i], 'y', ARGV[i + 1], 't', ARGV[i + 2])
    else
      tail = redis.call('XADD', KEYS[1], '*', 'a', ARGV[i], 'y', ARGV[i + 1], 't', ARGV[i + 2], 'r', ARGV[i + 3])
    end
    last, room, more = last + count, room - count, more + count - 1
  elseif number + count - 1 > last then
    break
  end
  number = number + count
end
if last > before then
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f:%.0f:%.0f', session, last, now))
  if more > 0 or not noted then redis.call('HSET', KEYS[4], 'framed', string.format('%.0f', framed + more)) end
  if not kept and redis.call('HLEN', KEYS[2]) > tonumber(ARGV[6]) then
    local all = redis.call('HGETALL', KEYS[2])
    for i = 1, #all, 2 do
      local seen = tonumber(string.match(all[i + 1], '(%d+)$'))
      if now - seen > tonumber(ARGV[7]) then redis.call('HDEL', KEYS[2], all[i]) end
    end
  end
end
return {code, last, detail}
