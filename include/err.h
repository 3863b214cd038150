/* Errors that are expected. One list, err.def; the values are Kafka's error codes, so a
 * handler's result goes on the wire as it is. Codes below ERR_INTERNAL_BASE never leave us.
 * Bugs are CHECKs, lying hardware is FATAL (check.h). errno becomes `err` at the I/O
 * boundary (err_from_errno) and nowhere else. */
#ifndef LEAT_ERR_H
#define LEAT_ERR_H

#include "base.h"

typedef enum {
#define ERR(name, code, retriable, text) ERR_##name = (code),
#include "err.def"
#undef ERR
} err;

/* "UNKNOWN_TOPIC_OR_PARTITION"; "?" for a number that is in no row. */
const char *err_name(err e);
/* A sentence for people (Kafka's default message for Kafka's codes). */
const char *err_text(err e);
/* Does a Kafka client retry on this code? */
bool err_retriable(err e);
/* ENOSPC → ERR_DISK_FULL, EIO → ERR_IO, ENOENT → ERR_NOT_FOUND, …, anything unlisted →
 * ERR_IO. `errno_value` is positive. */
err err_from_errno(int errno_value);
/* What a client is told for an internal code: ERR_DISK_FULL → KAFKA_STORAGE_ERROR and so on;
 * Kafka's own codes come back unchanged. */
err err_to_kafka(err e);

#endif
