/* What fetch.c and fetch_session.c share. */
#ifndef LEAT_FETCH_INT_H
#define LEAT_FETCH_INT_H

#include "broker_int.h"

/* What a consumer wants of one partition, and what it was told last (for incremental answers). */
struct fetch_key {
    struct uuid topic_id; /* zero when the request names topics */
    i32 partition;
    char name[252]; /* NUL-padded; empty when the request gives ids */
};
struct fetch_partition {
    UT_hash_handle hh; /* in a session, by key */
    struct list link;  /* in the order to serve */
    struct fetch_key key;
    u32 name_len;
    i64 fetch_offset;
    i32 max_bytes;
    i32 current_leader_epoch;
    /* Told last; -1 = never. */
    i64 told_high_watermark, told_log_start;
    i16 told_error;
};

/* Kept on the shard of the connection that made it (clients stay on one connection per broker). */
struct fetch_session {
    UT_hash_handle hh; /* by id */
    struct list lru;
    i32 id, epoch; /* epoch: expected of the next request */
    bool by_id;    /* topic ids, not names */
    bool busy;     /* a fetch works on it */
    bool closed;   /* to be freed when no longer busy */
    u64 used_ns, created_ns;
    u32 size; /* partitions */
    struct fetch_partition *table;
    struct list partitions;
};

/* What fetch works on: the partitions and the session they belong to (NULL = sessionless). */
struct fetch_context {
    struct fetch_session *session;
    struct list *partitions; /* of struct fetch_partition.link */
    struct list own;         /* the list itself when sessionless */
    u32 count;
    bool incremental; /* answer only what changed */
    i32 session_id;   /* for the answer */
};

/* Applies the request to its session (KIP-227). An error is the answer's top-level error. */
err fetch_context_open(struct call *c, struct fetch_context *x);
/* The answer is built: partitions that had data go to the end of the order; frees a closed
 * session. */
void fetch_context_close(struct broker *b, struct fetch_context *x);

#endif
