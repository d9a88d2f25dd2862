-- GCRA as a script: one limit, kept by Redis for all gateways. KEYS[1] the limit, ARGV: units a second, burst.
local now = redis.call('TIME')
local at = tonumber(now[1]) + tonumber(now[2]) / 1e6
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), at)
if tat + 1 / rate - at > burst / rate then return 0 end
redis.call('SET', KEYS[1], string.format('%.6f', tat + 1 / rate), 'EX', 3600)
return 1
