-- Plays a list of requests from its first to its last and again.
-- Arguments: the file of requests, and a header for all of them if one is wanted.

require("report")

local requests
local last = 0

function init(args)
  requests = require("requests")(args[1], args[2])
end

function request()
  last = last % #requests + 1
  return requests[last]
end
