-- Health of a GPUNode for Argo CD, where one stands in Git for its maintenance or circuit breaker. It is about whether the
-- node is read: a sick GPU shall not hold up a sync. As kstatus has it, except that a breaker forced open is wanted.
local status = obj.status or {}
local ready = nil
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Ready" then
    ready = condition
  end
end

if ready == nil or (status.observedGeneration or 0) < (obj.metadata.generation or 0) then
  return { status = "Progressing", message = "The operator has not processed this generation yet" }
end
if obj.spec ~= nil and obj.spec.circuitBreaker == "ForceOpen" then
  return { status = "Suspended", message = "spec.circuitBreaker is ForceOpen: the node is not read" }
end
if ready.status ~= "True" then
  return { status = "Progressing", message = ready.reason .. ": " .. ready.message }
end
return { status = "Healthy", message = "Health: " .. (status.health or "Unknown") .. ", " .. (status.reason or "") }
