-- Sends a deck through wrk, one record a request. Usage: wrk ... URL -- DECK RECORD_BYTES
-- Each thread would walk the whole deck, so it is meant for one thread (wrk -t1).

local threads = {}
local deck, record_bytes

exhausted = false

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   deck = assert(io.open(args[1], "rb"))
   record_bytes = tonumber(args[2])
end

function request()
   local record = deck:read(record_bytes)
   if record and #record == record_bytes then
      return record
   end
   -- An empty request sends nothing: no record goes out twice, and the window is void.
   exhausted = true
   wrk.thread:stop()
   return ""
end

function done(summary, latency)
   local is_exhausted = false
   for _, thread in ipairs(threads) do
      is_exhausted = is_exhausted or thread:get("exhausted")
   end
   local errors = summary.errors
   io.write(string.format(
      '{"answered":%d,"refused":%d,"broken":%d,"timeouts":%d,"seconds":%.6f,' ..
         '"p50_ms":%.3f,"p99_ms":%.3f,"exhausted":%s}\n',
      summary.requests, errors.status, errors.connect + errors.read + errors.write,
      errors.timeout, summary.duration / 1e6, latency:percentile(50) / 1e3,
      latency:percentile(99) / 1e3, tostring(is_exhausted)
   ))
end
