/* The error list (err.def) as names, texts and mappings. */
#include "err.h"

#include <errno.h>

const char *err_name(err e)
{
    switch (e) {
#define ERR(name, code, retriable, text) \
    case ERR_##name:                     \
        return #name;
#include "err.def"
#undef ERR
    }
    return "?";
}

const char *err_text(err e)
{
    switch (e) {
#define ERR(name, code, retriable, text) \
    case ERR_##name:                     \
        return text;
#include "err.def"
#undef ERR
    }
    return "unknown error";
}

bool err_retriable(err e)
{
    switch (e) {
#define ERR(name, code, retriable, text) \
    case ERR_##name:                     \
        return retriable;
#include "err.def"
#undef ERR
    }
    return false;
}

err err_from_errno(int errno_value)
{
    switch (errno_value) {
    case 0:
        return ERR_NONE;
    case ENOSPC:
    case EDQUOT:
        return ERR_DISK_FULL;
    case ENOENT:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_DENIED;
    case ENOMEM:
    case ENOBUFS:
        return ERR_NO_MEMORY;
    case EAGAIN:
    case EBUSY:
    case EMFILE:
    case ENFILE:
        return ERR_BUSY;
    case ECANCELED:
        return ERR_CANCELED;
    case ETIMEDOUT:
    case ETIME:
        return ERR_TIMED_OUT;
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED:
    case ENOTCONN:
        return ERR_CLOSED;
    case EINVAL:
    case EOPNOTSUPP:
    case ENOSYS:
        return ERR_UNSUPPORTED;
    default:
        return ERR_IO;
    }
}

err err_to_kafka(err e)
{
    if (e > ERR_INTERNAL_BASE)
        return e;
    switch ((int)e) {
    case ERR_IO:
    case ERR_DISK_FULL:
    case ERR_CORRUPT:
        return ERR_KAFKA_STORAGE_ERROR;
    case ERR_BUSY:
    case ERR_NO_MEMORY:
    case ERR_TIMED_OUT:
        return ERR_REQUEST_TIMED_OUT;
    case ERR_CANCELED:
    case ERR_CLOSED:
    case ERR_FENCED:
        return ERR_NOT_LEADER_OR_FOLLOWER;
    case ERR_MALFORMED:
    case ERR_TRUNCATED:
        return ERR_INVALID_REQUEST;
    default:
        return ERR_UNKNOWN_SERVER_ERROR;
    }
}
