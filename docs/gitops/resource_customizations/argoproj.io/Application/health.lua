-- How an Application is, for one that holds it: without this, no wave waits for the one before.
local hs = { status = "Progressing", message = "not synced yet" }
local status = obj.status
if status == nil or status.sync == nil or status.health == nil or status.health.status == nil then
  return hs
end
local operation = status.operationState
if operation ~= nil and (operation.phase == "Failed" or operation.phase == "Error") then
  return { status = "Degraded", message = operation.message or "the sync failed" }
end
if operation ~= nil and operation.phase == "Running" then
  hs.message = "is being synced"
  return hs
end
-- What is there already may be healthy before anything that was changed is applied.
if status.sync.status ~= "Synced" then
  return hs
end
-- Neither is it known yet how that is which was compared with an earlier revision of Git, or of the chart.
local compared = status.sync.comparedTo
if compared ~= nil and compared.source ~= nil and obj.spec.source ~= nil then
  for _, part in ipairs({ "repoURL", "targetRevision", "path", "chart" }) do
    if compared.source[part] ~= obj.spec.source[part] then
      hs.message = "not compared yet with " .. part .. " " .. tostring(obj.spec.source[part])
      return hs
    end
  end
end
hs.status = status.health.status
hs.message = status.health.message or ""
return hs
