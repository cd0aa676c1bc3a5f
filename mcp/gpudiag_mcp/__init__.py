"""The MCP facade: answers an assistant's questions from GPUNodes and GPUDiagnostics, and creates them if allowed.

``kube`` reads and creates, ``cache`` keeps a watched copy per context, ``questions`` turns objects into answers
(pure), ``answers`` gives them their shape, size and safety, ``create`` is the policy of creating, ``server`` is the
only part that knows MCP.
"""
