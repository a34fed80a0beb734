/* SPDX-License-Identifier: MIT */
/**
 * @file driver_api.h
 * @brief The part of the CUDA driver API that Ferrum uses, declared by us: no toolkit is needed to
 * build the host side, and nothing links with libcuda.
 *
 * Names and values are those of the driver's ABI (64-bit). FERRUM_CUDA_DRIVER_API lists every
 * function with the symbol that exports it; host side and emulated driver both expand it. Where a
 * toolkit is installed, tests/cuda_emu/abi.sh compares this file with its header.
 */
#ifndef FERRUM_BACKENDS_CUDA_DRIVER_API_H
#define FERRUM_BACKENDS_CUDA_DRIVER_API_H

#include <stddef.h>
#include <stdint.h>

typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphNode_st *CUgraphNode;
typedef struct CUgraphExec_st *CUgraphExec;
typedef struct CUuuid_st {
    char bytes[16];
} CUuuid;

/** Results; X(name, value). */
#define FERRUM_CUDA_RESULTS(X)                                                                     \
    X(CUDA_SUCCESS, 0)                                                                             \
    X(CUDA_ERROR_INVALID_VALUE, 1)                                                                 \
    X(CUDA_ERROR_OUT_OF_MEMORY, 2)                                                                 \
    X(CUDA_ERROR_NOT_INITIALIZED, 3)                                                               \
    X(CUDA_ERROR_DEINITIALIZED, 4)                                                                 \
    X(CUDA_ERROR_STUB_LIBRARY, 34)                                                                 \
    X(CUDA_ERROR_DEVICE_UNAVAILABLE, 46)                                                           \
    X(CUDA_ERROR_NO_DEVICE, 100)                                                                   \
    X(CUDA_ERROR_INVALID_DEVICE, 101)                                                              \
    X(CUDA_ERROR_INVALID_IMAGE, 200)                                                               \
    X(CUDA_ERROR_INVALID_CONTEXT, 201)                                                             \
    X(CUDA_ERROR_NO_BINARY_FOR_GPU, 209)                                                           \
    X(CUDA_ERROR_ECC_UNCORRECTABLE, 214)                                                           \
    X(CUDA_ERROR_INVALID_PTX, 218)                                                                 \
    X(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, 222)                                                     \
    X(CUDA_ERROR_OPERATING_SYSTEM, 304)                                                            \
    X(CUDA_ERROR_INVALID_HANDLE, 400)                                                              \
    X(CUDA_ERROR_ILLEGAL_STATE, 401)                                                               \
    X(CUDA_ERROR_NOT_FOUND, 500)                                                                   \
    X(CUDA_ERROR_NOT_READY, 600)                                                                   \
    X(CUDA_ERROR_ILLEGAL_ADDRESS, 700)                                                             \
    X(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701)                                                     \
    X(CUDA_ERROR_LAUNCH_TIMEOUT, 702)                                                              \
    X(CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE, 708)                                                      \
    X(CUDA_ERROR_CONTEXT_IS_DESTROYED, 709)                                                        \
    X(CUDA_ERROR_ASSERT, 710)                                                                      \
    X(CUDA_ERROR_HARDWARE_STACK_ERROR, 714)                                                        \
    X(CUDA_ERROR_ILLEGAL_INSTRUCTION, 715)                                                         \
    X(CUDA_ERROR_MISALIGNED_ADDRESS, 716)                                                          \
    X(CUDA_ERROR_INVALID_ADDRESS_SPACE, 717)                                                       \
    X(CUDA_ERROR_INVALID_PC, 718)                                                                  \
    X(CUDA_ERROR_LAUNCH_FAILED, 719)                                                               \
    X(CUDA_ERROR_NOT_PERMITTED, 800)                                                               \
    X(CUDA_ERROR_NOT_SUPPORTED, 801)                                                               \
    X(CUDA_ERROR_SYSTEM_NOT_READY, 802)                                                            \
    X(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, 803)                                                      \
    X(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, 900)                                                  \
    X(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, 901)                                                  \
    X(CUDA_ERROR_STREAM_CAPTURE_MERGE, 902)                                                        \
    X(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, 903)                                                    \
    X(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, 904)                                                     \
    X(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, 905)                                                    \
    X(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, 906)                                                     \
    X(CUDA_ERROR_CAPTURED_EVENT, 907)                                                              \
    X(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, 908)                                                 \
    X(CUDA_ERROR_UNKNOWN, 999)

/** Every other constant; X(name, value). */
#define FERRUM_CUDA_CONSTANTS(X)                                                                   \
    X(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1)                                                \
    X(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 5)                                                       \
    X(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 6)                                                       \
    X(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 7)                                                       \
    X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 8)                                          \
    X(CU_DEVICE_ATTRIBUTE_WARP_SIZE, 10)                                                           \
    X(CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 13)                                                          \
    X(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16)                                                \
    X(CU_DEVICE_ATTRIBUTE_INTEGRATED, 18)                                                          \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, 20)                                                        \
    X(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, 33)                                                          \
    X(CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, 34)                                                       \
    X(CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 36)                                                   \
    X(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 37)                                             \
    X(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 38)                                                       \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 75)                                            \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 76)                                            \
    X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 81)                                \
    X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 97)                                   \
    X(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 0)                                                  \
    X(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, 1)                                                      \
    X(CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, 3)                                                       \
    X(CU_FUNC_ATTRIBUTE_NUM_REGS, 4)                                                               \
    X(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 8)                                          \
    X(CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 9)                                       \
    X(CU_CTX_SCHED_AUTO, 0)                                                                        \
    X(CU_CTX_SCHED_SPIN, 1)                                                                        \
    X(CU_CTX_SCHED_YIELD, 2)                                                                       \
    X(CU_CTX_SCHED_BLOCKING_SYNC, 4)                                                               \
    X(CU_STREAM_DEFAULT, 0)                                                                        \
    X(CU_STREAM_NON_BLOCKING, 1)                                                                   \
    X(CU_EVENT_DEFAULT, 0)                                                                         \
    X(CU_EVENT_BLOCKING_SYNC, 1)                                                                   \
    X(CU_EVENT_DISABLE_TIMING, 2)                                                                  \
    X(CU_MEMHOSTALLOC_PORTABLE, 1)                                                                 \
    X(CU_STREAM_CAPTURE_MODE_GLOBAL, 0)                                                            \
    X(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, 1)                                                      \
    X(CU_STREAM_CAPTURE_MODE_RELAXED, 2)                                                           \
    X(CU_STREAM_CAPTURE_STATUS_NONE, 0)                                                            \
    X(CU_STREAM_CAPTURE_STATUS_ACTIVE, 1)                                                          \
    X(CU_STREAM_CAPTURE_STATUS_INVALIDATED, 2)                                                     \
    X(CU_GRAPH_NODE_TYPE_KERNEL, 0)                                                                \
    X(CU_GRAPH_NODE_TYPE_MEMCPY, 1)                                                                \
    X(CU_GRAPH_NODE_TYPE_MEMSET, 2)                                                                \
    X(CU_GET_PROC_ADDRESS_DEFAULT, 0)

#define FERRUM_CUDA_ENUMERATOR(name, value) name = value,
typedef enum CUresult {
    FERRUM_CUDA_RESULTS(FERRUM_CUDA_ENUMERATOR)
} CUresult;
enum {
    FERRUM_CUDA_CONSTANTS(FERRUM_CUDA_ENUMERATOR)
};
#undef FERRUM_CUDA_ENUMERATOR

/** Enumerated arguments; int in the ABI. */
typedef int CUdevice_attribute;
typedef int CUfunction_attribute;
typedef int CUstreamCaptureMode;
typedef int CUstreamCaptureStatus;
typedef int CUgraphNodeType;
typedef int CUjit_option;
typedef int CUdriverProcAddressQueryResult;

/** X(name, exported symbol, parameters): every function, all of them in drivers of CUDA 12 and 13.
 */
#define FERRUM_CUDA_DRIVER_API(X)                                                                  \
    X(cuInit, cuInit, (unsigned int flags))                                                        \
    X(cuDriverGetVersion, cuDriverGetVersion, (int *out_version))                                  \
    X(cuGetErrorName, cuGetErrorName, (CUresult error, const char **out_name))                     \
    X(cuGetErrorString, cuGetErrorString, (CUresult error, const char **out_text))                 \
    X(cuDeviceGetCount, cuDeviceGetCount, (int *out_count))                                        \
    X(cuDeviceGet, cuDeviceGet, (CUdevice * out_device, int ordinal))                              \
    X(cuDeviceGetName, cuDeviceGetName, (char *out_name, int bytes, CUdevice device))              \
    X(cuDeviceGetUuid, cuDeviceGetUuid_v2, (CUuuid * out_uuid, CUdevice device))                   \
    X(cuDeviceTotalMem, cuDeviceTotalMem_v2, (size_t * out_bytes, CUdevice device))                \
    X(cuDeviceGetAttribute, cuDeviceGetAttribute,                                                  \
      (int *out_value, CUdevice_attribute attribute, CUdevice device))                             \
    X(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain,                                          \
      (CUcontext * out_context, CUdevice device))                                                  \
    X(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, (CUdevice device))                  \
    X(cuDevicePrimaryCtxSetFlags, cuDevicePrimaryCtxSetFlags_v2,                                   \
      (CUdevice device, unsigned int flags))                                                       \
    X(cuDevicePrimaryCtxGetState, cuDevicePrimaryCtxGetState,                                      \
      (CUdevice device, unsigned int *out_flags, int *out_active))                                 \
    X(cuCtxSetCurrent, cuCtxSetCurrent, (CUcontext context))                                       \
    X(cuCtxGetCurrent, cuCtxGetCurrent, (CUcontext * out_context))                                 \
    X(cuCtxPushCurrent, cuCtxPushCurrent_v2, (CUcontext context))                                  \
    X(cuCtxPopCurrent, cuCtxPopCurrent_v2, (CUcontext * out_context))                              \
    X(cuCtxGetDevice, cuCtxGetDevice, (CUdevice * out_device))                                     \
    X(cuCtxSynchronize, cuCtxSynchronize, (void))                                                  \
    X(cuModuleLoadData, cuModuleLoadData, (CUmodule * out_module, const void *image))              \
    X(cuModuleLoadDataEx, cuModuleLoadDataEx,                                                      \
      (CUmodule * out_module, const void *image, unsigned int options, CUjit_option *names,        \
       void **values))                                                                             \
    X(cuModuleUnload, cuModuleUnload, (CUmodule module))                                           \
    X(cuModuleGetFunction, cuModuleGetFunction,                                                    \
      (CUfunction * out_function, CUmodule module, const char *name))                              \
    X(cuFuncGetAttribute, cuFuncGetAttribute,                                                      \
      (int *out_value, CUfunction_attribute attribute, CUfunction function))                       \
    X(cuFuncSetAttribute, cuFuncSetAttribute,                                                      \
      (CUfunction function, CUfunction_attribute attribute, int value))                            \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessor, cuOccupancyMaxActiveBlocksPerMultiprocessor,    \
      (int *out_blocks, CUfunction function, int threads, size_t shared_bytes))                    \
    X(cuLaunchKernel, cuLaunchKernel,                                                              \
      (CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,         \
       unsigned int block_x, unsigned int block_y, unsigned int block_z,                           \
       unsigned int shared_bytes, CUstream stream, void **params, void **extra))                   \
    X(cuMemGetInfo, cuMemGetInfo_v2, (size_t * out_free, size_t * out_total))                      \
    X(cuMemAlloc, cuMemAlloc_v2, (CUdeviceptr * out_address, size_t bytes))                        \
    X(cuMemFree, cuMemFree_v2, (CUdeviceptr address))                                              \
    X(cuMemHostAlloc, cuMemHostAlloc, (void **out_pointer, size_t bytes, unsigned int flags))      \
    X(cuMemFreeHost, cuMemFreeHost, (void *pointer))                                               \
    X(cuMemcpyHtoD, cuMemcpyHtoD_v2, (CUdeviceptr to, const void *from, size_t bytes))             \
    X(cuMemcpyDtoH, cuMemcpyDtoH_v2, (void *to, CUdeviceptr from, size_t bytes))                   \
    X(cuMemcpyDtoD, cuMemcpyDtoD_v2, (CUdeviceptr to, CUdeviceptr from, size_t bytes))             \
    X(cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2,                                                     \
      (CUdeviceptr to, const void *from, size_t bytes, CUstream stream))                           \
    X(cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2,                                                     \
      (void *to, CUdeviceptr from, size_t bytes, CUstream stream))                                 \
    X(cuMemcpyDtoDAsync, cuMemcpyDtoDAsync_v2,                                                     \
      (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))                           \
    X(cuMemsetD8, cuMemsetD8_v2, (CUdeviceptr address, unsigned char value, size_t count))         \
    X(cuMemsetD32, cuMemsetD32_v2, (CUdeviceptr address, unsigned int value, size_t count))        \
    X(cuMemsetD8Async, cuMemsetD8Async,                                                            \
      (CUdeviceptr address, unsigned char value, size_t count, CUstream stream))                   \
    X(cuMemsetD32Async, cuMemsetD32Async,                                                          \
      (CUdeviceptr address, unsigned int value, size_t count, CUstream stream))                    \
    X(cuStreamCreate, cuStreamCreate, (CUstream * out_stream, unsigned int flags))                 \
    X(cuStreamDestroy, cuStreamDestroy_v2, (CUstream stream))                                      \
    X(cuStreamSynchronize, cuStreamSynchronize, (CUstream stream))                                 \
    X(cuStreamQuery, cuStreamQuery, (CUstream stream))                                             \
    X(cuStreamWaitEvent, cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned int flags))  \
    X(cuEventCreate, cuEventCreate, (CUevent * out_event, unsigned int flags))                     \
    X(cuEventDestroy, cuEventDestroy_v2, (CUevent event))                                          \
    X(cuEventRecord, cuEventRecord, (CUevent event, CUstream stream))                              \
    X(cuEventQuery, cuEventQuery, (CUevent event))                                                 \
    X(cuEventSynchronize, cuEventSynchronize, (CUevent event))                                     \
    X(cuEventElapsedTime, cuEventElapsedTime, (float *out_ms, CUevent from, CUevent to))           \
    X(cuStreamBeginCapture, cuStreamBeginCapture_v2, (CUstream stream, CUstreamCaptureMode mode))  \
    X(cuStreamEndCapture, cuStreamEndCapture, (CUstream stream, CUgraph * out_graph))              \
    X(cuStreamIsCapturing, cuStreamIsCapturing,                                                    \
      (CUstream stream, CUstreamCaptureStatus * out_status))                                       \
    X(cuGraphInstantiate, cuGraphInstantiateWithFlags,                                             \
      (CUgraphExec * out_exec, CUgraph graph, unsigned long long flags))                           \
    X(cuGraphUpload, cuGraphUpload, (CUgraphExec exec, CUstream stream))                           \
    X(cuGraphLaunch, cuGraphLaunch, (CUgraphExec exec, CUstream stream))                           \
    X(cuGraphDestroy, cuGraphDestroy, (CUgraph graph))                                             \
    X(cuGraphExecDestroy, cuGraphExecDestroy, (CUgraphExec exec))                                  \
    X(cuGraphGetNodes, cuGraphGetNodes, (CUgraph graph, CUgraphNode * out_nodes, size_t * count))  \
    X(cuGraphNodeGetType, cuGraphNodeGetType, (CUgraphNode node, CUgraphNodeType * out_type))      \
    X(cuGetProcAddress, cuGetProcAddress_v2,                                                       \
      (const char *symbol, void **out_function, int version, uint64_t flags,                       \
       CUdriverProcAddressQueryResult *out_status))

#endif
