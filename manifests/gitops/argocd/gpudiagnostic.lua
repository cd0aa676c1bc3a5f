-- Health of a GPUDiagnostic for Argo CD. It is about the question, not about the GPUs: a sick GPU shall not hold up a
-- sync, so whatever the verdict, an answered question is Healthy and its message tells the verdict. As kstatus has it.
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

if obj.spec ~= nil and obj.spec.suspend == true then
  return { status = "Suspended", message = "spec.suspend is true" }
end
if conditions.Ready == nil or (status.observedGeneration or 0) < (obj.metadata.generation or 0) then
  return { status = "Progressing", message = "The operator has not processed this generation yet" }
end
local reconciling = conditions.Reconciling
if reconciling ~= nil and reconciling.status == "True" then
  return { status = "Progressing", message = reconciling.reason .. ": " .. reconciling.message }
end
local stalled = conditions.Stalled
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.reason .. ": " .. stalled.message }
end
local complete = conditions.Complete
if complete ~= nil and complete.status ~= "True" then
  return { status = "Progressing", message = complete.reason .. ": " .. complete.message }
end
local ready = conditions.Ready
if ready.status ~= "True" then
  return { status = "Progressing", message = ready.reason .. ": " .. ready.message }
end
return { status = "Healthy", message = "Verdict: " .. (status.verdict or "none") }
