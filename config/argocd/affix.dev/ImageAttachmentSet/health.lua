-- The health of an ImageAttachmentSet for Argo CD, from its conditions and their generation.
local hs = {status = "Progressing", message = "Waiting for affix to reconcile it"}

if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "Being deleted"
  return hs
end

if obj.spec ~= nil and obj.spec.suspend == true then
  hs.status = "Suspended"
  hs.message = "spec.suspend is set"
  return hs
end

-- Conditions of an older generation do not describe the current spec.
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return hs
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end

local ready = conditions.Ready
if ready == nil then
  return hs
end

local function holds(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

hs.message = ready.reason .. ": " .. ready.message
if ready.status == "True" then
  hs.status = "Healthy"
elseif holds("Stalled") then
  -- Only the user can fix it.
  hs.status = "Degraded"
elseif holds("Reconciling") then
  -- In progress, or retried: a sync waits for it.
  hs.status = "Progressing"
elseif ready.reason == "Planned" then
  -- A dry run waits until the user disables it.
  hs.status = "Suspended"
else
  hs.status = "Degraded"
end
return hs
