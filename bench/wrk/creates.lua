-- Creates one link a request.
-- Arguments: the API key, a word that makes this run's addresses differ from others'.

require("report")

local create

function init(args)
  create = require("create")(args[1], args[2])
end

function request()
  return create()
end
