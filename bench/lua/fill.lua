-- Arguments: first key, count of keys. Puts each key once, in order, and stops; one thread only.
local common = require("common")
local head, next_key, last_key, answered, count

setup = common.setup
done = common.done

function init(args)
  local first_key = tonumber(args[1])
  count = tonumber(args[2])
  next_key, last_key, answered = first_key - 1, first_key + count - 1, 0 -- wrk throws the first request away
  common.seed(seed)
  head = common.put_head(wrk.headers["Host"])
end

function request()
  local key = math.max(0, math.min(next_key, last_key))
  next_key = next_key + 1
  return head .. common.put_body(key)
end

function response()
  answered = answered + 1
  if answered >= count then
    wrk.thread:stop()
  end
end
