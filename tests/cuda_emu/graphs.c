/* SPDX-License-Identifier: MIT */
/* The driver: graphs. An executable graph shares the operations of the one it was made from. */
#include "tests/cuda_emu/driver.h"

#include <stdlib.h>

CUgraph emu_graphs;
CUgraphExec emu_execs;

static CUgraph *find_graph(CUgraph graph)
{
    CUgraph *p = &emu_graphs;

    while (*p != NULL && *p != graph)
        p = &(*p)->next;
    return p;
}

static CUgraphExec *find_exec(CUgraphExec exec)
{
    CUgraphExec *p = &emu_execs;

    while (*p != NULL && *p != exec)
        p = &(*p)->next;
    return p;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *out_exec, CUgraph graph, unsigned long long flags)
{
    CUgraphExec exec;

    EMU_ENTER(cuGraphInstantiate);
    if (*find_graph(graph) == NULL || flags != 0)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    exec = calloc(1, sizeof *exec);
    if (exec == NULL)
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    exec->ops = graph->ops;
    exec->ops->references++;
    exec->references = 1;
    exec->next = emu_execs;
    emu_execs = exec;
    *out_exec = exec;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream)
{
    EMU_ENTER(cuGraphUpload);
    if (*find_exec(exec) == NULL || emu_stream(stream) == NULL)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    CUstream s;
    emu_op_t *op;

    EMU_ENTER(cuGraphLaunch);
    s = emu_stream(stream);
    if (*find_exec(exec) == NULL || s == NULL)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    op = emu_op_create(EMU_OP_GRAPH);
    op->exec = exec;
    exec->references++;
    return emu_leave(emu_submit(s, op));
}

CUresult cuGraphDestroy(CUgraph graph)
{
    CUgraph *p;

    EMU_ENTER(cuGraphDestroy);
    p = find_graph(graph);
    if (*p == NULL)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *p = graph->next;
    emu_ops_release(graph->ops);
    free(graph);
    return emu_leave(CUDA_SUCCESS);
}

void emu_exec_release(CUgraphExec exec)
{
    if (--exec->references > 0)
        return;
    emu_ops_release(exec->ops);
    free(exec);
}

CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    CUgraphExec *p;

    EMU_ENTER(cuGraphExecDestroy);
    p = find_exec(exec);
    if (*p == NULL)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *p = exec->next;
    emu_exec_release(exec);
    return emu_leave(CUDA_SUCCESS);
}

/* A node is an operation. */
CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *out_nodes, size_t *count)
{
    size_t i = 0;

    EMU_ENTER(cuGraphGetNodes);
    if (*find_graph(graph) == NULL)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (out_nodes != NULL) {
        for (emu_op_t *op = graph->ops->first; op != NULL && i < *count; op = op->next)
            out_nodes[i++] = (CUgraphNode)op;
        for (; i < *count; i++)
            out_nodes[i] = NULL;
    }
    *count = graph->ops->count;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType *out_type)
{
    EMU_ENTER(cuGraphNodeGetType);
    for (CUgraph g = emu_graphs; g != NULL; g = g->next) {
        for (emu_op_t *op = g->ops->first; op != NULL; op = op->next) {
            if ((CUgraphNode)op != node)
                continue;
            *out_type = op->kind == EMU_OP_KERNEL ? CU_GRAPH_NODE_TYPE_KERNEL
                        : op->kind == EMU_OP_COPY ? CU_GRAPH_NODE_TYPE_MEMCPY
                                                  : CU_GRAPH_NODE_TYPE_MEMSET;
            return emu_leave(CUDA_SUCCESS);
        }
    }
    return emu_leave(CUDA_ERROR_INVALID_VALUE);
}

/* Whatever tests left behind. */
void emu_objects_free(void)
{
    while (emu_captures != NULL) {
        emu_capture_t *capture = emu_captures;

        emu_captures = capture->next;
        emu_ops_release(capture->ops);
        free(capture);
    }
    while (emu_graphs != NULL) {
        CUgraph graph = emu_graphs;

        emu_graphs = graph->next;
        emu_ops_release(graph->ops);
        free(graph);
    }
    while (emu_execs != NULL) {
        CUgraphExec exec = emu_execs;

        emu_execs = exec->next;
        emu_exec_release(exec);
    }
    while (emu_events != NULL) {
        CUevent event = emu_events;

        emu_events = event->next;
        emu_event_release(event);
    }
}
