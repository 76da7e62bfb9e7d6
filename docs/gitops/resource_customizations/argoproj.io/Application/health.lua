-- How an Application is, for one that holds it: without this, no wave waits for the one before.
local hs = { status = "Progressing", message = "not synced yet" }
local status = obj.status
if status == nil or status.sync == nil or status.health == nil or status.health.status == nil then
  return hs
end
-- What is there already may be healthy before anything was applied.
if status.operationState == nil and status.sync.status ~= "Synced" then
  return hs
end
hs.status = status.health.status
hs.message = status.health.message or ""
return hs
