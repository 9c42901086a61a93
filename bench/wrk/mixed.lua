-- Plays a list of redirects, and creates a link with every twentieth request.
-- Arguments: the file of requests, the API key, a word that makes this run's addresses differ from others'.

require("report")

local requests, create
local last, count = 0, 0

function init(args)
  requests = require("requests")(args[1])
  create = require("create")(args[2], args[3])
end

function request()
  count = count + 1
  if count % 20 == 0 then
    return create()
  end
  last = last % #requests + 1
  return requests[last]
end
