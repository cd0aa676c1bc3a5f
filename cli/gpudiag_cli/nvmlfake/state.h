/* The state file: what every function answers. See state.c for the format. */
#ifndef GPUDIAG_NVMLFAKE_STATE_H
#define GPUDIAG_NVMLFAKE_STATE_H

#include <stdint.h>

enum { NODE = -1 }; /* in place of a GPU's index: a key of the whole node */

/* Read the file again if it is another one, or was written, since the last time. 0 when there is none to read. */
int state_refresh(void);

/* The text after `key=`, NULL without such a line. With a GPU: `gpu.<index>.key`, else `gpu.*.key`. */
const char *state_text(int gpu, const char *key);

/* The same as a number (decimal, 0x, negative); 0 when there is no such line. */
int state_number(int gpu, const char *key, int64_t *value);

#endif
