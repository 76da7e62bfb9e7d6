-- Where a model stands, from its condition Ready, which the operator writes for that.
local hs = { status = "Progressing", message = "waiting for the operator to look at it" }
if obj.status == nil or obj.status.conditions == nil then
  return hs
end
if obj.metadata.generation ~= nil and obj.status.observedGeneration ~= obj.metadata.generation then
  return hs
end
local people = { WaitingForApproval = true, WaitingForPromotion = true, Suspended = true }
for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Ready" then
    hs.message = condition.message
    if condition.status == "True" then
      hs.status = "Healthy"
    elseif condition.status == "False" then
      hs.status = "Degraded"
    elseif people[condition.reason] then
      hs.status = "Suspended"
    end
  end
end
return hs
