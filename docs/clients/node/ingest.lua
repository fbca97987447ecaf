
local function backlog_of(length, last, cursor, applied, trimmed)
  if last == cursor or length == 0 then return 0 end
  return math.max(1, length - (applied - trimmed))
end

local c = redis.call('HMGET', KEYS[3], 'applied', 'cursor', 'trimmed', 'seal', 'closed')
if c[4] and c[4] ~= '' then return {'SEALED', 0, c[4]} end
local session, first, count = tonumber(ARGV[2]), tonumber(ARGV[3]), (#ARGV - 7) / 4
local kept, last = redis.call('HGET', KEYS[2], ARGV[1]), 0
if kept then
  local kept_session, kept_last = string.match(kept, '^(%d+):(%d+):')
  if tonumber(kept_session) > session then return {'STALE', 0, ''} end
  if tonumber(kept_session) == session then last = tonumber(kept_last) end
end
if c[5] then return {'MOVED', last, c[5]} end
if first > last + 1 then
  if ARGV[4] ~= '1' then return {'GAP', last, ''} end
  last = first - 1
end
local stream, info = {}, redis.pcall('XINFO', 'STREAM', KEYS[1])
if not info.err then for i = 1, #info, 2 do stream[info[i]] = info[i + 1] end end
local room = tonumber(ARGV[5]) - backlog_of(stream['length'] or 0, stream['last-generated-id'] or '0-0',
  c[2] or '0-0', tonumber(c[1] or '0'), tonumber(c[3] or '0'))
local skip = last + 1 - first
local stop = math.min(count, skip + math.max(room, 0))
for k = skip, stop - 1 do
  local i = 8 + 4 * k
  if ARGV[i + 3] == '' then
    redis.call('XADD', KEYS[1], '*', 'a', ARGV[i], 'y', ARGV[i + 1], 't', ARGV[i + 2])
  else
    redis.call('XADD', KEYS[1], '*', 'a', ARGV[i], 'y', ARGV[i + 1], 't', ARGV[i + 2], 'r', ARGV[i + 3])
  end
  last = last + 1
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if stop > skip then
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f:%.0f:%.0f', session, last, now))
  if not kept and redis.call('HLEN', KEYS[2]) > tonumber(ARGV[6]) then
    local all = redis.call('HGETALL', KEYS[2])
    for i = 1, #all, 2 do
      local seen = tonumber(string.match(all[i + 1], '(%d+)$'))
      if now - seen > tonumber(ARGV[7]) then redis.call('HDEL', KEYS[2], all[i]) end
    end
  end
end
return {stop < count and 'FULL' or 'OK', last, ''}
