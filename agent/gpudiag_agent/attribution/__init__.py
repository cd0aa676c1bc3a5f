"""Who was using a GPU.

Two witnesses. The kubelet's pod-resources socket says which container holds which device (:mod:`.kubelet`,
:mod:`.pod_resources`, :mod:`.devices`). A process id, as the driver lists it and as an XID line names it, leads
through its control group to the pod it runs in (:mod:`.cgroup`, :mod:`.procfs`). The agent has no Kubernetes rights;
the names come from the kubelet's own folder of pod logs. :mod:`.poller` asks both beside the sampling, never within.
"""
