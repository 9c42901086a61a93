-- Creates one link a request, each for an address of its own.
-- Arguments: the API key, a word that makes this run's addresses differ from others'.

require("report")

local head, body
local count = 0

function init(args)
  -- The number has a fixed width, so that the head with its Content-Length is the same for every request.
  body = '{"long_url":"https://www.example.com/articles/of/ordinary/length/' .. args[2] .. '?number=%010d&from=bench"}'
  head = "POST /api/v1/urls HTTP/1.1\r\nHost: " .. wrk.headers["Host"]
    .. "\r\nAuthorization: Bearer " .. args[1]
    .. "\r\nContent-Type: application/json\r\nContent-Length: " .. #body:format(0) .. "\r\n\r\n"
end

function request()
  count = count + 1
  return head .. body:format(count)
end
