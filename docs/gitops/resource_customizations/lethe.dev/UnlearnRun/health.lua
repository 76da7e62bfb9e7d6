-- A run is made by the operator and is in no Git: this is what the tree of its model shows.
local hs = { status = "Progressing", message = "waiting for the operator to look at it" }
if obj.status == nil or obj.status.conditions == nil then
  return hs
end
if obj.metadata.generation ~= nil and obj.status.observedGeneration ~= obj.metadata.generation then
  return hs
end
local found = {}
for _, condition in ipairs(obj.status.conditions) do
  found[condition.type] = condition
end
local queued = { Suspended = true, WaitingForQuota = true, Preempted = true }
local ready = found.Ready
if ready ~= nil then
  hs.message = ready.message
  if ready.status == "True" then
    hs.status = "Healthy"
  elseif ready.status == "False" then
    hs.status = "Degraded"
  elseif queued[ready.reason] then
    hs.status = "Suspended"
  end
end
-- It has ended, and what it made is not rolled out.
if found.GatesPassed ~= nil and found.GatesPassed.status == "False" then
  hs.status = "Degraded"
  hs.message = found.GatesPassed.message
end
return hs
