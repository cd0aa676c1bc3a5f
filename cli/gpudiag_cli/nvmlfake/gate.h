/* What stands before every function: the faults that the state file asks for. */
#ifndef GPUDIAG_NVMLFAKE_GATE_H
#define GPUDIAG_NVMLFAKE_GATE_H

/* A GPU (mig < 0) or one of its MIG devices: what NVML's opaque handles point to. */
struct handle {
    int gpu, mig;
};

/* Pass the gate of a function about the node (NODE) or a GPU. 0, or the code to return at once.
 * May not return (hang.<function>), and may end the process (crash.<function>). */
int gate(const char *function, int gpu);

/* The same for a function that gets a handle; refuses a handle that is none. */
int gate_handle(const char *function, const struct handle *handle);

/* The handle of a GPU (mig < 0) or of a MIG device; NULL outside the bounds. */
struct handle *handle_of(int gpu, int mig);

/* How often the library is initialised at the moment. */
extern int initialised;

#endif
