-- Shared by the scripts: a seed and an address for each thread, random values that do not compress, and
-- one line of JSON at the end. The caller puts this folder into LUA_PATH.
local common = {}
local letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
local addresses, thread_count = nil, 0

-- BENCH_ADDRESSES ("host:port,host:port") spreads the threads over several nodes.
function common.setup(thread)
  if addresses == nil then
    addresses = {}
    for host, port in (os.getenv("BENCH_ADDRESSES") or ""):gmatch("([^,:]+):(%d+)") do
      addresses[#addresses + 1] = wrk.lookup(host, port)[1]
    end
  end
  if #addresses > 0 then
    thread.addr = addresses[thread_count % #addresses + 1]
  end
  thread_count = thread_count + 1
  thread:set("seed", thread_count)
end

function common.seed(number)
  math.randomseed(os.time() * 1000 + number)
  local bytes = {}
  for i = 1, 65536 do
    local at = math.random(1, 64)
    bytes[i] = letters:sub(at, at)
  end
  common.noise = table.concat(bytes)
end

-- 128 bytes out of a random text; no escape is needed in JSON.
local function value()
  local at = math.random(1, 65536 - 128)
  return common.noise:sub(at, at + 127)
end

-- Keys have ten bytes, so every body has the same length and the head of the request is a constant.
function common.put_head(host)
  local length = #'{"key":"k000000000","value":""}' + 128
  return "POST /store HTTP/1.1\r\nHost: " .. host .. "\r\nContent-Type: application/json\r\nContent-Length: "
    .. length .. "\r\n\r\n"
end

function common.put_body(number)
  return string.format('{"key":"k%09d","value":"%s"}', number, value())
end

function common.done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,"errors":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    e.connect + e.read + e.write + e.status + e.timeout))
end

return common
