-- Arguments: count of keys, consistency. Gets random keys, all of which exist.
local common = require("common")
local keys, tail

setup = common.setup
done = common.done

function init(args)
  keys = tonumber(args[1])
  common.seed(seed)
  local query = args[2] == "local" and "" or "?consistency=" .. args[2] -- local is what a plain GET means
  tail = query .. " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\n\r\n"
end

function request()
  return string.format("GET /store/k%09d", math.random(0, keys - 1)) .. tail
end
