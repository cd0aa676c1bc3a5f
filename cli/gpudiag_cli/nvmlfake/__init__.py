"""A stand-in for ``libnvidia-ml.so.1``, so that the agent's one NVML path runs on a machine without a GPU.

It stands in at the level of the library: the agent, its child process and pynvml are the real ones. ``build`` compiles
it, ``Machine`` writes the state file that says what it answers, also while it runs. pynvml
finds the library by ``LD_LIBRARY_PATH``, which ``Machine.environment`` sets.

``state.c`` has the format of the file and ``gate.c`` the faults; the files in ``machines/`` and ``generations/`` show
the keys. Of a GPU, after ``gpu.3.`` or ``gpu.*.``:

    name uuid serial pci numa architecture vbios inforom (return code)      board.c, device.c
    gsp gsp.default gsp.version persistence
    memory.total memory.used memory.reserved  mig.current mig.pending mig.max
    mig.0.{uuid,name,gi,ci} mig.0.memory.{total,used}
    temperature margin threshold.<kind> power power.limit power.default      sensors.c
    energy (millijoules) utilization utilization.{memory,encoder,decoder}
    pstate reasons clock.<kind> clock.<kind>.max clock.<kind>.application clock.<kind>.default
    ecc.current ecc.pending ecc.{corrected,uncorrected}.{volatile,aggregate}   memory.c
    rows.{corrected,uncorrected,pending,failure} rows.{max,high,partial,low,none}
    sram.exceeded sram.{l2,sm,pcie,mcu,other} repair.{channel,tpc} unrepairable
    pcie.generation pcie.width pcie.generation.max pcie.width.max            links.c
    nvlink.count nvlink.<link>.{state,version,remote.kind,remote.pci,error.<counter>}, or nvlink.*.…
    fabric.{state,status,clique,mask,summary,cluster}
    processes.{compute,graphics}                                             processes.c
    field.<id> field.<id>.<scope> = <type>:<number>, or error:<code>         fields.c
    events (mask of the types it knows)                                      events.c
    lost, and hang.<function> fail.<function> crash.<function> missing.<function>   gate.c

Of the node: driver nvml cuda count excluded confidential confidential.ready fabric.version init.result device print,
event (see events.c), and the faults of gate.c for every GPU.
"""

from gpudiag_cli.nvmlfake.library import BuildError, build
from gpudiag_cli.nvmlfake.machine import Machine, MachineError, machines

__all__ = ["BuildError", "Machine", "MachineError", "build", "machines"]
