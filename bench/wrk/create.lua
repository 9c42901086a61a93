-- Makes requests that create one link each, every one for an address of its own.

-- `word` makes this run's addresses differ from others'.
return function(key, word)
  -- The number has a fixed width, so that the head with its Content-Length is the same for every request.
  local body = '{"long_url":"https://www.example.com/articles/of/ordinary/length/' .. word
    .. '?number=%010d&from=bench"}'
  local head = "POST /api/v1/urls HTTP/1.1\r\nHost: " .. wrk.headers["Host"]
    .. "\r\nAuthorization: Bearer " .. key
    .. "\r\nContent-Type: application/json\r\nContent-Length: " .. #body:format(0) .. "\r\n\r\n"
  local count = 0
  return function()
    count = count + 1
    return head .. body:format(count)
  end
end
