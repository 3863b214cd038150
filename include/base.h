/* Vocabulary shared by every file: sized integers, views of bytes, container_of.
 *
 * Sizes are always in bytes unless the name says otherwise; `count`, `index` and
 * `bytes` are never mixed. Multi-byte integers on the wire (Kafka) are big-endian,
 * on our disks little-endian; both go through the helpers in bytes.h.
 */
#ifndef LEAT_BASE_H
#define LEAT_BASE_H

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t i8;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;
typedef double f64;

#define KIB ((u64)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)

#define NS_PER_US ((u64)1000)
#define NS_PER_MS ((u64)1000000)
#define NS_PER_S ((u64)1000000000)

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define MUST_USE __attribute__((warn_unused_result))
#define CACHE_LINE 64

/* Rounds up to a power of two `align`. */
static inline u64 align_up(u64 v, u64 align)
{
    return (v + align - 1) & ~(align - 1);
}

/* A view of bytes somebody else owns. `data == NULL` is Kafka's null (len is 0 then). */
struct bytes {
    const u8 *data;
    u32 len;
};

/* 16 bytes, compared as bytes; all zero is "none" (Kafka's Uuid.ZERO_UUID). */
struct uuid {
    u8 b[16];
};

#endif
