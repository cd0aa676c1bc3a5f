/* Lines of `key=value`. An empty line and one that starts with # mean nothing; of two lines with one key the last
 * counts. The file may be replaced or rewritten at any time: whoever changes it writes another file and renames it,
 * so that half a state is never seen. */
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_LINES = 8192, MAX_KEY = 192, MAX_BYTES = 1 << 20 };

static char *content;
static struct {
    const char *key, *value;
} lines[MAX_LINES];
static int line_count;
static struct stat seen;

static int unchanged(const struct stat *now) {
    return content && now->st_ino == seen.st_ino && now->st_size == seen.st_size &&
           now->st_mtim.tv_sec == seen.st_mtim.tv_sec && now->st_mtim.tv_nsec == seen.st_mtim.tv_nsec;
}

static void split(void) {
    char *rest = content, *line;
    line_count = 0;
    while ((line = strsep(&rest, "\n")) && line_count < MAX_LINES) {
        char *value = strchr(line, '=');
        if (*line == '#' || !value)
            continue;
        *value = '\0';
        lines[line_count].key = line;
        lines[line_count++].value = value + 1;
    }
}

int state_refresh(void) {
    const char *path = getenv("GPUDIAG_NVMLFAKE_STATE");
    struct stat now;
    FILE *file = path ? fopen(path, "re") : NULL;
    if (!file)
        return 0;
    if (fstat(fileno(file), &now) == 0 && !unchanged(&now)) {
        free(content);
        content = calloc(1, MAX_BYTES);
        if (content)
            fread(content, 1, MAX_BYTES - 1, file);
        seen = now;
        if (content)
            split();
    }
    fclose(file);
    return content != NULL;
}

static const char *line(const char *key) {
    for (int i = line_count - 1; i >= 0; i--)
        if (strcmp(lines[i].key, key) == 0)
            return lines[i].value;
    return NULL;
}

const char *state_text(int gpu, const char *key) {
    char full[MAX_KEY];
    const char *found;
    if (gpu == NODE)
        return line(key);
    snprintf(full, sizeof full, "gpu.%d.%s", gpu, key);
    if ((found = line(full)))
        return found;
    snprintf(full, sizeof full, "gpu.*.%s", key);
    return line(full);
}

int state_number(int gpu, const char *key, int64_t *value) {
    const char *text = state_text(gpu, key);
    char *end;
    if (!text)
        return 0;
    *value = *text == '-' ? strtoll(text, &end, 0) : (int64_t)strtoull(text, &end, 0);
    return end != text;
}
