/* A stand-in of the CUDA driver: the calls that look for a GPU, and those that capture graphs, which it counts.
   STUB_FAILS names a call and its error: cuInit=100. A capture calls back: begin, end, launch, each with a stream's handle.
   cuda_driver.py serves all other calls, to those who ask for their addresses by name. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static int fails(const char *call) {
    const char *said = getenv("STUB_FAILS");
    size_t length = strlen(call);
    return said && !strncmp(said, call, length) && said[length] == '=' ? atoi(said + length + 1) : 0;
}

int cuInit(unsigned flags) { return flags ? 1 : fails("cuInit"); }

int cuDriverGetVersion(int *version) {
    const char *said = getenv("STUB_CUDA");
    *version = said ? atoi(said) : 12060;
    return fails("cuDriverGetVersion");
}

int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return fails("cuDeviceGet");
}

int cuDeviceGetName(char *name, int length, int device) {
    (void)device;
    const char *said = getenv("STUB_NAME");
    strncpy(name, said ? said : "NVIDIA Stand-in", length);
    return fails("cuDeviceGetName");
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    const char *said = getenv("STUB_CAPABILITY"); /* 87: 8.7 */
    int capability = said ? atoi(said) : 87;
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : attribute == 18 ? 1 : -1;
    return fails("cuDeviceGetAttribute");
}

int cuMemGetInfo_v2(size_t *available, size_t *total) {
    *available = *total = (size_t)1 << 34;
    return fails("cuMemGetInfo_v2");
}

/* CUDA's error numbers. */
enum { INVALID_VALUE = 1, ILLEGAL_STATE = 401, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900 };

struct graph { long number; int executable; };

typedef void (*hook)(void *stream, long number);
static hook on_begin, on_end, on_launch;
static long next_number = 1;
static int graphs, executables;
/* Per thread, as the mode says that is recorded in. */
static __thread void *capturing;

void stub_hooks(hook begin, hook end, hook launch) { on_begin = begin, on_end = end, on_launch = launch; }
int stub_graphs(void) { return graphs; }
int stub_executables(void) { return executables; }

int cuStreamBeginCapture_v2(void *stream, int mode) {
    int failed = fails("cuStreamBeginCapture_v2");
    if (failed) return failed;
    if (!stream) return CAPTURE_UNSUPPORTED; /* the default stream cannot be recorded */
    if (mode != 1) return INVALID_VALUE;
    if (capturing) return ILLEGAL_STATE;
    capturing = stream;
    if (on_begin) on_begin(stream, 0);
    return 0;
}

int cuStreamEndCapture(void *stream, struct graph **graph) {
    if (capturing != stream || !stream) return ILLEGAL_STATE;
    capturing = NULL;
    *graph = NULL;
    long number = next_number++;
    if (on_end) on_end(stream, number);
    int failed = fails("cuStreamEndCapture");
    if (failed) return failed;
    *graph = calloc(1, sizeof **graph);
    (*graph)->number = number;
    graphs++;
    return 0;
}

int cuGraphInstantiateWithFlags(struct graph **executable, struct graph *graph, unsigned long long flags) {
    int failed = fails("cuGraphInstantiateWithFlags");
    if (failed || flags || !graph || graph->executable) return failed ? failed : INVALID_VALUE;
    *executable = calloc(1, sizeof **executable);
    **executable = (struct graph){graph->number, 1};
    executables++;
    return 0;
}

int cuGraphLaunch(struct graph *executable, void *stream) {
    int failed = fails("cuGraphLaunch");
    if (failed || !executable || !executable->executable || !stream) return failed ? failed : INVALID_VALUE;
    if (on_launch) on_launch(stream, executable->number);
    return 0;
}

int cuGraphExecDestroy(struct graph *executable) {
    if (!executable || !executable->executable) return INVALID_VALUE;
    free(executable);
    executables--;
    return 0;
}

int cuGraphDestroy(struct graph *graph) {
    if (!graph || graph->executable) return INVALID_VALUE;
    free(graph);
    graphs--;
    return 0;
}

/* The primary context is let go of when the process has shut Python down, and so not by a call into it. */
static int (*look_up)(const char *name, int version, void **address), (*on_retain)(void), (*on_release)(void);

void stub_serve(int (*by_name)(const char *, int, void **), int (*retain)(void), int (*release)(void)) {
    look_up = by_name, on_retain = retain, on_release = release;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)0xC0DE;
    return device ? INVALID_VALUE : on_retain ? on_retain() : 0;
}

int cuDevicePrimaryCtxRelease(int device) { return device ? INVALID_VALUE : on_release ? on_release() : 0; }

int cuGetProcAddress_v2(const char *name, void **address, int version, unsigned long long flags, int *found) {
    int failed = 0;
    (void)flags;
    if (!strcmp(name, "cuDevicePrimaryCtxRetain")) *address = (void *)cuDevicePrimaryCtxRetain;
    else if (!strcmp(name, "cuDevicePrimaryCtxRelease")) *address = (void *)cuDevicePrimaryCtxRelease;
    else failed = look_up ? look_up(name, version, address) : NOT_FOUND;
    if (found) *found = failed ? 1 : 0;
    return failed;
}
