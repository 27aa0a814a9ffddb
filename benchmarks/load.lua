-- Sends a deck through wrk, one record a request, for so many seconds. Usage:
--    wrk -t1 ... URL -- DECK RECORD_BYTES SECONDS
-- Each thread would walk the whole deck, so it is meant for one thread. wrk itself has to run for
-- longer: what is under way when the time is over gets answered in the rest, so that the sender knows
-- of each delivery what became of it.

local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long ns; } moment; int clock_gettime(int clock, moment *now);")
local MONOTONIC = 1
local moment = ffi.new("moment")

local threads = {}
local deck, record_bytes, seconds, ends_at
local is_verified = false

exhausted = false
sent = 0

local function now()
   ffi.C.clock_gettime(MONOTONIC, moment)
   return tonumber(moment.s) + tonumber(moment.ns) / 1e9
end

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   deck = assert(io.open(args[1], "rb"))
   record_bytes = tonumber(args[2])
   seconds = tonumber(args[3])
end

function request()
   if not is_verified then
      -- wrk asks for one before it starts, to look at it.
      is_verified = true
      return deck:read(record_bytes) or ""
   end
   ends_at = ends_at or now() + seconds
   -- An empty request sends nothing, and its connection stays idle.
   if now() >= ends_at then
      return ""
   end
   local record = deck:read(record_bytes)
   if record and #record == record_bytes then
      sent = sent + 1
      return record
   end
   -- No record goes out twice: the window is void.
   exhausted = true
   wrk.thread:stop()
   return ""
end

function done(summary, latency)
   local is_exhausted, all_sent = false, 0
   for _, thread in ipairs(threads) do
      is_exhausted = is_exhausted or thread:get("exhausted")
      all_sent = all_sent + thread:get("sent")
   end
   local errors = summary.errors
   io.write(string.format(
      '{"sent":%d,"answered":%d,"refused":%d,"broken":%d,"timeouts":%d,' ..
         '"p50_ms":%.3f,"p99_ms":%.3f,"exhausted":%s}\n',
      all_sent, summary.requests, errors.status, errors.connect + errors.read + errors.write,
      errors.timeout, latency:percentile(50) / 1e3,
      latency:percentile(99) / 1e3, tostring(is_exhausted)
   ))
end
