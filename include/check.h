/* Assertions that stay on, and typed objects.
 *
 * Three kinds of failure, never mixed: a *bug* is a CHECK (crash with a report, on in
 * release too); an *expected* failure is an `err` (err.h), handled where it is first
 * understood; an *environment that lied* (failed flush, impossible errno, corrupt durable
 * byte) is FATAL: it names file, offset and remedy and ends the process at once.
 */
#ifndef LEAT_CHECK_H
#define LEAT_CHECK_H

#include "base.h"

/* Reports and aborts. Never returns. Any thread. */
_Noreturn void check_failed(const char *file, int line, const char *func, const char *what);
/* Prints the message as the last log line and ends the process with status 70. Any thread. */
_Noreturn void fatal(const char *file, int line, const char *fmt, ...) PRINTF_LIKE(3, 4);

#define CHECK(cond) (likely(cond) ? (void)0 : check_failed(__FILE__, __LINE__, __func__, #cond))
#define FATAL(...) fatal(__FILE__, __LINE__, __VA_ARGS__)

/* Costly checks: only in debug and simulator builds (-DLEAT_DEBUG). */
#ifdef LEAT_DEBUG
#define DCHECK(cond) CHECK(cond)
#else
#define DCHECK(cond) ((void)sizeof(!(cond)))
#endif

/* The first member of every long-lived object is `u32 magic`. INIT on birth, MAGIC_CHECK
 * on entry of public functions, MAGIC_POISON at release. */
#define MAGIC_INIT(obj, value) ((obj)->magic = (value))
#define MAGIC_CHECK(obj, value) CHECK((obj) != NULL && (obj)->magic == (value))
#define MAGIC_POISON(obj) ((obj)->magic = 0xdeadbeefu)

#endif
