-- Reads a list of requests, made in full before the clock starts.

local agents = {
  "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
  "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
  "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
  "Mozilla/5.0 (Android 15; Mobile; rv:142.0) Gecko/142.0 Firefox/142.0",
}

-- The file has a line for each request: code, tab, user agent, and where it has headers of its own, a tab and those, a
-- bar after each. A user agent is the number of one of the above, or 0 if it is among the request's own headers.
-- `extra` is a header for all, or nil.
return function(file, extra)
  local requests, tail = {}, {}
  for number = 0, #agents do
    tail[number] = " HTTP/1.1\r\nHost: " .. wrk.headers["Host"]
      .. (number > 0 and "\r\nUser-Agent: " .. agents[number] or "")
      .. "\r\nAccept: text/html,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.9\r\n"
      .. (extra and extra .. "\r\n" or "")
  end
  for line in io.lines(file) do
    local code, agent, own = line:match("^(%S+)\t(%d+)\t?(.*)$")
    requests[#requests + 1] = "GET /" .. code .. tail[tonumber(agent)] .. own:gsub("|", "\r\n") .. "\r\n"
  end
  return requests
end
