/* Values of the kernel's io_uring interface that liburing 2.3 (Debian 12) does not name yet.
 * Each is used only after a probe at start found it. Newer liburing defines some as enum
 * constants, which #ifndef can't see: hence names of our own. */
#ifndef LEAT_URING_COMPAT_H
#define LEAT_URING_COMPAT_H

#include <liburing.h>

#define URING_SETUP_NO_SQARRAY (1u << 16) /* kernel 6.6 */
#define URING_ENTER_NO_IOWAIT (1u << 7)   /* kernel 6.15, with the feature below */
#define URING_FEAT_NO_IOWAIT (1u << 17)
#define URING_RECVSEND_POLL_FIRST (1u << 0) /* kernel 5.19; ioprio of recv and send */
#define URING_FEAT_REG_REG_RING \
    (1u << 13) /* kernel 6.3: newer than the next one, which can't be probed */
#define URING_SEND_ZC_REPORT_USAGE (1u << 3) /* kernel 6.2; ioprio of zero-copy sends */
#define URING_NOTIF_USAGE_ZC_COPIED (1u << 31)

#endif
