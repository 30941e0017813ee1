/* SPDX-License-Identifier: Apache-2.0 */
/* Captures and graphs of the emulated runtime. A launch puts each branch of the graph on a stream
 * of its own, so that the executing thread draws the order of all nodes among those that are
 * allowed. */
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/runtime/inside.h"

typedef struct node {
    fake_op op;
    int branch;
    int after; /* a node of any branch that it waits for, too; -1: none */
} node;

struct CUuserObject_st {
    unsigned references;
    cudaHostFn_t destroy;
    void *pointer;
};

typedef struct held { /* user objects, each as often as it is held */
    cudaUserObject_t object;
    unsigned references;
} held;

struct CUgraph_st {
    uint64_t id;
    int users; /* its handle, and executable graphs of it */
    cudaStream_t origin;
    node *nodes;
    int count, branches;
    held *held;
    int nheld;
};

struct CUgraphExec_st {
    int users; /* its handle, and launches */
    cudaGraph_t graph;
    held *held;
    int nheld;
    cudaEvent_t over; /* the last launch */
};

static uint64_t captures;
static int count_held;

int fake_graphs(void) {
    return count_held;
}

uint64_t fake_capture_id(cudaGraph_t graph) {
    return graph->id;
}

/* ---- user objects ---- */

static void *run_destroy(void *arg) {
    cudaUserObject_t object = arg;
    fake_in_callback = true;
    object->destroy(object->pointer);
    fake_in_callback = false;
    free(object);
    return NULL;
}

static void release(cudaUserObject_t object, unsigned references) {
    if (object->references < references) fake_wrong("a user object is released too often");
    object->references -= references;
    if (object->references) return;
    count_held--;
    fake_detach(run_destroy, object);
}

cudaError_t cudaUserObjectCreate(cudaUserObject_t *object, void *pointer, cudaHostFn_t destroy,
                                 unsigned references, unsigned flags) {
    cudaError_t err = fake_begin(false);
    if (err == cudaSuccess && (flags != cudaUserObjectNoDestructorSync || !references))
        err = cudaErrorInvalidValue;
    if (err == cudaSuccess) {
        *object = calloc(1, sizeof **object);
        if (!*object) fake_wrong("out of memory for a user object");
        **object = (struct CUuserObject_st){references, destroy, pointer};
        count_held++;
    }
    return fake_end(err);
}

cudaError_t cudaUserObjectRelease(cudaUserObject_t object, unsigned references) {
    pthread_mutex_lock(&fake_lock); /* cannot fail */
    release(object, references);
    pthread_mutex_unlock(&fake_lock);
    return cudaSuccess;
}

static held *copy_held(const held *list, int count) {
    held *copy = calloc((size_t)count + 1, sizeof *copy);
    if (!copy) fake_wrong("out of memory for a graph");
    for (int i = 0; i < count; i++) copy[i] = list[i];
    for (int i = 0; i < count; i++) copy[i].object->references += copy[i].references;
    return copy;
}

static void release_held(held *list, int count) {
    for (int i = 0; i < count; i++) release(list[i].object, list[i].references);
    free(list);
}

cudaError_t cudaGraphRetainUserObject(cudaGraph_t graph, cudaUserObject_t object,
                                      unsigned references, unsigned flags) {
    cudaError_t err = fake_begin(false);
    if (err == cudaSuccess) {
        graph->held = realloc(graph->held, ((size_t)graph->nheld + 1) * sizeof *graph->held);
        if (!graph->held) fake_wrong("out of memory for a graph");
        graph->held[graph->nheld++] = (held){object, references};
        if (!(flags & cudaGraphUserObjectMove)) object->references += references;
    }
    return fake_end(err);
}

/* ---- captures ---- */

void fake_capture_fails(cudaGraph_t graph) {
    for (cudaStream_t s = fake_streams; s; s = s->next)
        if (s->graph == graph) s->capture = cudaStreamCaptureStatusInvalidated;
}

static cudaError_t fail(cudaGraph_t graph, cudaError_t err) {
    fake_capture_fails(graph);
    return err;
}

static void join(cudaStream_t s, cudaGraph_t graph, const struct CUstream_st *as) {
    s->graph = graph;
    s->capture = cudaStreamCaptureStatusActive;
    s->capture_mode = as->capture_mode;
    s->thread = as->thread;
    s->branch = graph->branches++;
    s->node = -1;
}

static void add(cudaStream_t s, const fake_op *op, int after) {
    cudaGraph_t g = s->graph;
    g->nodes = realloc(g->nodes, ((size_t)g->count + 1) * sizeof *g->nodes);
    if (!g->nodes) fake_wrong("out of memory for a graph");
    g->nodes[g->count] = (node){*op, s->branch, after};
    if (op->event) op->event->users++;
    s->node = g->count++;
}

cudaError_t fake_capture(cudaStream_t s, const fake_op *op) {
    fake_op copy = *op;
    if (op->kind == KERNEL) {
        copy.to = malloc(op->bytes);
        if (!copy.to) fake_wrong("out of memory for a kernel");
        memcpy(copy.to, op->to, op->bytes);
    }
    add(s, &copy, -1);
    return cudaSuccess;
}

/* The stream that has the capture; NULL: it is over. */
static cudaStream_t stream_of(uint64_t capture) {
    cudaStream_t s = fake_streams;
    while (s && (!s->graph || s->graph->id != capture)) s = s->next;
    return s;
}

/* The stream goes on after what a captured event stands for, and is captured too from then on. */
static cudaError_t wait_captured(cudaStream_t s, cudaEvent_t event) {
    cudaStream_t with = stream_of(event->capture);
    fake_op nothing = {.kind = WAIT_EVENT};
    if (!with) return s->graph ? fail(s->graph, cudaErrorCapturedEvent) : cudaErrorCapturedEvent;
    if (with->capture != cudaStreamCaptureStatusActive) return cudaErrorStreamCaptureInvalidated;
    if (s->legacy) return fail(with->graph, cudaErrorStreamCaptureImplicit);
    if (s->graph && s->graph != with->graph) {
        fake_capture_fails(s->graph);
        return fail(with->graph, cudaErrorStreamCaptureMerge);
    }
    if (!s->graph) join(s, with->graph, with);
    add(s, &nothing, event->node);
    return cudaSuccess;
}

cudaError_t fake_capture_event(cudaStream_t s, fake_op *op, bool *taken) {
    cudaEvent_t event = op->event;
    *taken = true;
    if (s->capture == cudaStreamCaptureStatusInvalidated) return cudaErrorStreamCaptureInvalidated;
    if (!s->graph && op->outside) return cudaErrorInvalidValue;
    if (op->outside && event->capture) return fail(s->graph, cudaErrorCapturedEvent);
    if (op->outside) { /* a node like any other; generations are those of the launch */
        add(s, op, -1);
        return cudaSuccess;
    }
    if (op->kind == WAIT_EVENT && event->capture) return wait_captured(s, event);
    if (op->kind == WAIT_EVENT && s->graph && event->recorded)
        return fail(s->graph, cudaErrorStreamCaptureIsolation);
    if (op->kind == RECORD) event->capture = s->graph ? s->graph->id : 0;
    if (op->kind == RECORD && s->graph) event->node = s->node;
    *taken = s->graph;
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode how) {
    cudaError_t err = fake_begin(false);
    cudaStream_t s = err == cudaSuccess ? fake_stream(stream) : NULL;
    if (err == cudaSuccess && (!s || s->legacy || s->graph))
        err = cudaErrorStreamCaptureUnsupported;
    if (err == cudaSuccess) {
        cudaGraph_t graph = calloc(1, sizeof *graph);
        if (!graph) fake_wrong("out of memory for a graph");
        *graph = (struct CUgraph_st){.id = ++captures, .users = 1, .origin = s};
        struct CUstream_st as = {.capture_mode = how, .thread = pthread_self()};
        join(s, graph, &as);
        count_held++;
    }
    return fake_end(err);
}

/* Whether all that was captured comes before the origin's end. */
static bool all_joined(const struct CUgraph_st *g, int last) {
    bool all = true, *seen = calloc((size_t)g->count + 1, sizeof *seen);
    if (!seen) fake_wrong("out of memory for a graph");
    for (int i = g->count - 1; i >= 0; i--) {
        seen[i] |= i == last;
        if (!seen[i]) continue;
        if (g->nodes[i].after >= 0) seen[g->nodes[i].after] = true;
        for (int j = i - 1; j >= 0; j--)
            if (g->nodes[j].branch == g->nodes[i].branch) {
                seen[j] = true;
                break;
            }
    }
    for (int i = 0; i < g->count; i++) all &= seen[i];
    free(seen);
    return all;
}

static void leave_graph(cudaGraph_t g) {
    if (--g->users) return;
    for (int i = 0; i < g->count; i++) {
        if (g->nodes[i].op.event) fake_event_leave(g->nodes[i].op.event);
        if (g->nodes[i].op.kind == KERNEL) free(g->nodes[i].op.to);
    }
    free(g->nodes);
    free(g);
}

static void destroy_graph(cudaGraph_t graph) {
    count_held--;
    release_held(graph->held, graph->nheld);
    leave_graph(graph);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    cudaError_t err = fake_begin(false);
    cudaStream_t s = err == cudaSuccess ? fake_stream(stream) : NULL;
    *graph = NULL;
    if (err == cudaSuccess && (!s || !s->graph || s->graph->origin != s))
        err = cudaErrorInvalidResourceHandle;
    if (err == cudaSuccess) {
        cudaGraph_t g = s->graph;
        if (s->capture != cudaStreamCaptureStatusActive)
            err = cudaErrorStreamCaptureInvalidated;
        else if (!all_joined(g, s->node))
            err = cudaErrorStreamCaptureUnjoined;
        for (cudaStream_t t = fake_streams; t; t = t->next) {
            if (t->graph != g) continue;
            t->graph = NULL;
            t->capture = cudaStreamCaptureStatusNone;
        }
        if (err == cudaSuccess)
            *graph = g;
        else
            destroy_graph(g);
    }
    return fake_end(err);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    cudaError_t err = fake_begin(false);
    cudaStream_t s = err == cudaSuccess ? fake_stream(stream) : NULL;
    if (err == cudaSuccess && !s) err = cudaErrorInvalidResourceHandle;
    if (s && fake_captured_implicitly(s)) err = cudaErrorStreamCaptureImplicit;
    if (err == cudaSuccess) *status = s->capture;
    return fake_end(err);
}

/* ---- graphs ---- */

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    cudaError_t err = fake_begin(false);
    if (err == cudaSuccess) destroy_graph(graph);
    return fake_end(err);
}

static cudaEvent_t new_event(int device) {
    cudaEvent_t event = calloc(1, sizeof *event);
    if (!event) fake_wrong("out of memory for an event");
    event->device = device;
    event->users = 1;
    return event;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags) {
    cudaError_t err = fake_begin(false);
    if (err == cudaSuccess && flags) err = cudaErrorInvalidValue;
    if (err == cudaSuccess) {
        *exec = calloc(1, sizeof **exec);
        if (!*exec) fake_wrong("out of memory for a graph");
        **exec = (struct CUgraphExec_st){1, graph, copy_held(graph->held, graph->nheld),
                                         graph->nheld, new_event(fake_device())};
        graph->users++;
        count_held++;
    }
    return fake_end(err);
}

static void leave_exec(void *arg) {
    cudaGraphExec_t exec = arg;
    if (--exec->users) return;
    release_held(exec->held, exec->nheld);
    leave_graph(exec->graph);
    fake_event_leave(exec->over);
    free(exec);
}

/* What is launched goes on. */
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    cudaError_t err = fake_begin(false);
    if (err == cudaSuccess) {
        count_held--;
        leave_exec(exec);
    }
    return fake_end(err);
}

/* ---- launches ---- */

static void put(cudaStream_t s, fake_kind kind, cudaEvent_t event, uint64_t generation) {
    fake_op op = {.kind = kind, .event = event, .generation = generation};
    if (fake_queue(s, &op, NULL) != cudaSuccess) fake_wrong("a graph cannot be queued");
}

static void put_node(cudaStream_t s, const node *n) {
    fake_op op = n->op;
    if (op.kind == KERNEL) {
        op.to = malloc(op.bytes);
        if (!op.to) fake_wrong("out of memory for a kernel");
        memcpy(op.to, n->op.to, op.bytes);
    }
    if (op.kind == RECORD) op.generation = ++op.event->recorded;
    if (fake_queue(s, &op, NULL) != cudaSuccess) fake_wrong("a graph cannot be queued");
}

/* Waits for what was recorded outside before this launch. */
static void note_generations(cudaGraph_t g) {
    for (int i = 0; i < g->count; i++) {
        fake_op *op = &g->nodes[i].op;
        if (op->outside && op->event->destroyed)
            fake_wrong("a graph is launched with an event that was destroyed");
        if (op->outside && op->kind == WAIT_EVENT) op->generation = op->event->recorded;
    }
}

static void queue_nodes(cudaGraph_t g, cudaStream_t *branch) {
    cudaEvent_t *done = calloc((size_t)g->count + 1, sizeof *done);
    if (!done) fake_wrong("out of memory for a graph");
    for (int i = 0; i < g->count; i++)
        if (g->nodes[i].after >= 0 && !done[g->nodes[i].after])
            done[g->nodes[i].after] = new_event(branch[0]->device);
    for (int i = 0; i < g->count; i++) {
        const node *n = &g->nodes[i];
        cudaStream_t s = branch[n->branch];
        if (n->after >= 0) put(s, WAIT_EVENT, done[n->after], 1);
        if (n->op.kind != WAIT_EVENT || n->op.outside) put_node(s, n);
        if (done[i]) put(s, RECORD, done[i], 1);
    }
    for (int i = 0; i < g->count; i++)
        if (done[i]) fake_event_leave(done[i]);
    free(done);
}

static void queue_launch(cudaGraphExec_t exec, cudaStream_t s) {
    cudaGraph_t g = exec->graph;
    cudaStream_t *branch = calloc((size_t)g->branches, sizeof *branch);
    cudaEvent_t begin = new_event(s->device), end;
    if (!branch) fake_wrong("out of memory for a graph");
    put(s, RECORD, begin, 1);
    note_generations(g);
    for (int b = 0; b < g->branches; b++) {
        branch[b] = fake_stream_add(s->device);
        branch[b]->blocking = false;
        put(branch[b], WAIT_EVENT, begin, 1);
        put(branch[b], WAIT_EVENT, exec->over, exec->over->recorded);
    }
    queue_nodes(g, branch);
    for (int b = 0; b < g->branches; b++) {
        end = new_event(s->device);
        put(branch[b], RECORD, end, 1);
        put(s, WAIT_EVENT, end, 1);
        fake_event_leave(end);
        branch[b]->destroyed = true;
    }
    put(s, RECORD, exec->over, ++exec->over->recorded);
    fake_event_leave(begin);
    free(branch);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    cudaError_t err = fake_begin(false);
    cudaStream_t s = err == cudaSuccess ? fake_stream(stream) : NULL;
    fake_op over = {.kind = LAUNCH_OVER, .call = leave_exec, .to = exec};
    if (err == cudaSuccess && (!s || s->graph)) err = cudaErrorInvalidResourceHandle;
    if (err == cudaSuccess && fake_captured_implicitly(s)) err = cudaErrorStreamCaptureImplicit;
    if (err == cudaSuccess) {
        exec->users++;
        queue_launch(exec, s);
        err = fake_queue(s, &over, NULL);
    }
    return fake_end(err);
}
