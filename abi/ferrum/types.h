/* SPDX-License-Identifier: MIT */
/**
 * @file types.h
 * @brief Scalars, status codes, errors and formats that every Ferrum header shares.
 *
 * Rules that hold for the whole ABI, stated once:
 *
 *  - **Growth.** Every struct that crosses the border begins with ferrum_head_t. Within an ABI
 *    major, fields and table entries are only ever appended. Both sides accept smaller and larger
 *    structs: a reader looks at a field only when FERRUM_HAS() says that it is there. The least
 *    size of each struct is a frozen constant (`FERRUM_*_MIN_SIZE`), never `sizeof`.
 *  - **Status.** Every call that can fail returns ferrum_status_t and takes a `ferrum_error_t *`
 *    as its last argument. That struct belongs to the caller and may be NULL. Outputs (`out_*`)
 *    are written only on FERRUM_OK, unless an entry says otherwise.
 *  - **No side effects.** No call aborts, exits, prints, throws, installs signal handlers or reads
 *    the environment.
 *  - **Threading tags.** Each entry carries one:
 *      [any-thread]       safe from any thread at any time;
 *      [one-per-context]  one thread at a time per context; different contexts are independent;
 *      [init]             safe from any thread, but not concurrently on the same object.
 *  - **Matrices** are row-major. A linear layer with K inputs and N outputs holds `W[N,K]` and
 *    computes `y[m,N] = x[m,K] * W^T`.
 *  - **Shorthand** in comments: `b` tokens in the batch, `E` experts, `k` experts per token
 *    (top-k), `P = b*k` pairs, `h` hidden size, `I` expert intermediate size. A *pair* is one
 *    (token, slot); its *pair id* is `token*k + slot`. A *packed row* is a pair's position after a
 *    stable grouping by expert.
 */
#ifndef FERRUM_TYPES_H
#define FERRUM_TYPES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** ABI major. It is part of the exported symbol's name; a plugin of another major is not loaded. */
#define FERRUM_ABI_MAJOR 1u
/** ABI minor that these headers describe. Minors only append. */
#define FERRUM_ABI_MINOR 0u

/**
 * First member of every struct that crosses the border.
 *
 * `size` is the number of bytes that the writer of the struct knows of (normally `sizeof` at its
 * compile time); `version` is the ABI minor that it was compiled with. Initialise it with
 * FERRUM_HEAD().
 */
typedef struct ferrum_head {
    uint32_t size;    /**< bytes of the whole struct, head included */
    uint32_t version; /**< ABI minor of the writer */
} ferrum_head_t;

/* clang-format off */
/** Initialiser for the head of a struct of type @p type. */
#define FERRUM_HEAD(type) {(uint32_t)sizeof(type), FERRUM_ABI_MINOR}
/* clang-format on */

/** End offset of @p field in @p type: the size a struct must have to contain the field. */
#define FERRUM_END_OF(type, field) (offsetof(type, field) + sizeof(((type *)0)->field))

/**
 * Whether @p ptr (a non-NULL `type *` from the other side) is large enough to hold @p field.
 * It says nothing about the value: a table entry may be there and NULL.
 */
#define FERRUM_HAS(type, ptr, field) ((size_t)(ptr)->head.size >= FERRUM_END_OF(type, field))

/**
 * Result of a call. Zero is success, errors are negative. Control flow may depend on these and on
 * ferrum_reason_t, never on message text. Codes are never renumbered.
 */
typedef int32_t ferrum_status_t;
enum {
    FERRUM_OK = 0,
    FERRUM_INVALID_ARGUMENT = -1, /**< the caller broke the contract (shape, NULL, dtype, range) */
    FERRUM_INVALID_INPUT = -2, /**< data is unusable: non-finite logits, expert id out of range */
    FERRUM_UNSUPPORTED = -3,   /**< well-formed, but this backend does not do it; see reason */
    FERRUM_OUT_OF_MEMORY = -4, /**< an allocation failed; nothing changed */
    FERRUM_RESOURCE_EXHAUSTED = -5, /**< a bounded pool (KV blocks, sequences) is empty */
    FERRUM_NOT_FOUND = -6,          /**< no such file, plugin, tensor, interface or request */
    FERRUM_IO = -7,                 /**< the operating system failed a read, map or open */
    FERRUM_CORRUPT = -8,            /**< a file contradicts its own format */
    FERRUM_VERSION_MISMATCH = -9,   /**< ABI windows of host and plugin do not overlap */
    FERRUM_BAD_PLUGIN = -10,        /**< a plugin violates the loader's rules */
    FERRUM_PERMISSION = -11,        /**< refused by a security rule */
    FERRUM_DEVICE_ERROR = -12,      /**< the device failed this call; the context stays usable */
    FERRUM_DEVICE_LOST = -13,       /**< sticky: every later call on the context returns this */
    FERRUM_NO_STACK = -14,          /**< the expert stack lacks the form that this path needs */
    FERRUM_BUSY = -15,              /**< the object is in use (capture in flight, swap running) */
    FERRUM_TIMEOUT = -16,           /**< a bounded wait ran out */
    FERRUM_CANCELLED = -17,         /**< the caller asked to stop */
    FERRUM_INTERNAL = -18           /**< a bug in Ferrum or in a plugin; please report it */
};

/**
 * Why something was refused: the machine-readable half of an error. Values are never renumbered;
 * an unknown value reads as FERRUM_REASON_OTHER.
 */
typedef uint32_t ferrum_reason_t;
enum {
    FERRUM_REASON_NONE = 0,
    FERRUM_REASON_OTHER = 1,
    FERRUM_REASON_NOT_IMPLEMENTED = 2, /**< the plugin has no such entry */
    FERRUM_REASON_FORMAT = 3,          /**< weight format */
    FERRUM_REASON_BITS = 4,            /**< GPTQ code width */
    FERRUM_REASON_GROUP_SIZE = 5,
    FERRUM_REASON_ACT_ORDER = 6, /**< g_idx */
    FERRUM_REASON_ZERO_POINT = 7,
    FERRUM_REASON_K = 8,        /**< input features */
    FERRUM_REASON_N = 9,        /**< output features */
    FERRUM_REASON_EXPERTS = 10, /**< number of experts or expert range */
    FERRUM_REASON_TOP_K = 11,
    FERRUM_REASON_DTYPE = 12,
    FERRUM_REASON_ALIGNMENT = 13,
    FERRUM_REASON_ROUTING = 14, /**< score function, groups or selection bias */
    FERRUM_REASON_ACTIVATION = 15,
    FERRUM_REASON_BIAS = 16,
    FERRUM_REASON_LAYOUT = 17, /**< KV or packed-weight layout */
    FERRUM_REASON_HEAD_DIM = 18,
    FERRUM_REASON_BLOCK_SIZE = 19,
    FERRUM_REASON_LENGTH = 20,     /**< a buffer or array is too short or too long */
    FERRUM_REASON_NULL = 21,       /**< a required pointer is NULL */
    FERRUM_REASON_OVERFLOW = 22,   /**< a size computation would overflow */
    FERRUM_REASON_RANGE = 23,      /**< an id, offset or index is out of range */
    FERRUM_REASON_NON_FINITE = 24, /**< NaN or infinity where a number is needed */
    FERRUM_REASON_NO_DRIVER = 25,
    FERRUM_REASON_NO_DEVICE = 26,
    FERRUM_REASON_CPU_FEATURES = 27, /**< the processor lacks what the plugin needs */
    FERRUM_REASON_FLAGS = 28,        /**< an unknown flag bit is set */
    FERRUM_REASON_PRECISION = 29
};

/** Bytes in ferrum_error_t.message, terminator included. */
#define FERRUM_ERROR_MESSAGE_BYTES 240

/**
 * Where a failing call explains itself. Owned by the caller, fixed size, no pointers: it can be
 * read when memory has run out and after the plugin is gone.
 *
 * The caller sets `size` to `sizeof(ferrum_error_t)` (FERRUM_ERROR_INIT); a callee writes nothing
 * beyond it. On success the struct is left alone. `message` is one line of UTF-8 without a final
 * full stop or newline that names the thing and the remedy.
 */
typedef struct ferrum_error {
    uint32_t size;          /**< set by the caller */
    ferrum_status_t status; /**< same as the returned status */
    ferrum_reason_t reason;
    uint32_t reserved; /**< zero */
    char message[FERRUM_ERROR_MESSAGE_BYTES];
} ferrum_error_t;

/** Frozen least size of ferrum_error_t. */
#define FERRUM_ERROR_MIN_SIZE 256u
/* clang-format off */
/** Initialiser for a ferrum_error_t. */
#define FERRUM_ERROR_INIT {(uint32_t)sizeof(ferrum_error_t), 0, 0, 0, {0}}
/* clang-format on */

/** Element type of a buffer. */
typedef uint32_t ferrum_dtype_t;
enum {
    FERRUM_DTYPE_F32 = 0,
    FERRUM_DTYPE_F16 = 1,
    FERRUM_DTYPE_BF16 = 2,
    FERRUM_DTYPE_I32 = 3,
    FERRUM_DTYPE_U32 = 4,
    FERRUM_DTYPE_I8 = 5,
    FERRUM_DTYPE_U8 = 6
};

/**
 * How weights are stored. Values below 0x1000 are the type ids of the GGUF container, so a
 * tensor's type field can be passed on as it is; GPTQ tensors have ids of our own. Which of them a
 * backend takes is asked with `supports`, never assumed.
 */
typedef uint32_t ferrum_weight_format_t;
enum {
    FERRUM_FORMAT_F32 = 0,
    FERRUM_FORMAT_F16 = 1,
    FERRUM_FORMAT_Q4_0 = 2,
    FERRUM_FORMAT_Q4_1 = 3,
    FERRUM_FORMAT_Q5_0 = 6,
    FERRUM_FORMAT_Q5_1 = 7,
    FERRUM_FORMAT_Q8_0 = 8,
    FERRUM_FORMAT_Q2_K = 10,
    FERRUM_FORMAT_Q3_K = 11,
    FERRUM_FORMAT_Q4_K = 12,
    FERRUM_FORMAT_Q5_K = 13,
    FERRUM_FORMAT_Q6_K = 14,
    FERRUM_FORMAT_IQ4_NL = 20,
    FERRUM_FORMAT_IQ4_XS = 23,
    FERRUM_FORMAT_BF16 = 30,
    FERRUM_FORMAT_MXFP4 = 39,
    FERRUM_FORMAT_GPTQ = 0x1000 /**< int32-packed codes, per-group scales; see ferrum_gptq_t */
};

#ifdef __cplusplus
}
#endif

#endif /* FERRUM_TYPES_H */
