-- Arguments: count of keys. Puts random keys with random values.
local common = require("common")
local keys, head

setup = common.setup
done = common.done

function init(args)
  keys = tonumber(args[1])
  common.seed(seed)
  head = common.put_head(wrk.headers["Host"])
end

function request()
  return head .. common.put_body(math.random(0, keys - 1))
end
