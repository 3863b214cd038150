/* Start-up of the ring: probing, fall-backs, messages that help; and the blocking calls that are
 * made at start only (listening, opening files, registering memory).
 *
 * Fall-backs, best first: SINGLE_ISSUER|DEFER_TASKRUN (+NO_SQARRAY) → COOP_TASKRUN → plain.
 * Needed in any case: kernel 5.19 (provided buffer rings, multishot accept). */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "check.h"
#include "config.h"
#include "log.h"
#include "mem.h"
#include "uring_int.h"

#define CQ_PER_SQ 8u
#define MEMORY_TRIES 60u
#define MEMORY_REST_US 50000u
#define BUF_RING_START 32u /* buffers in the kernel's hands at first: 512 KiB of 16 KiB ones */

/* Of the process, bytes; RLIM_INFINITY is the largest number. 0 when it can't be read. */
static u64 locked_memory_limit(void)
{
    struct rlimit lim = { 0 };
    (void)getrlimit(RLIMIT_MEMLOCK, &lim);
    return lim.rlim_cur;
}

/* ---- messages ---- */

/* Content of a small file of /proc as a number, -1 when there is none. */
static int proc_number(const char *path)
{
    char text[32] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    int value = -1;
    return n > 0 && sscanf(text, "%d", &value) == 1 ? value : -1;
}

static err create_failed(int errno_value, char *why, size_t why_size)
{
    struct utsname un = { 0 };
    (void)uname(&un);
    switch (errno_value) {
    case EPERM:
    case EACCES:
        if (proc_number("/proc/sys/kernel/io_uring_disabled") > 0)
            snprintf(why, why_size,
                     "io_uring is switched off on this machine: "
                     "set sysctl kernel.io_uring_disabled=0");
        else
            snprintf(
                why, why_size,
                "io_uring is forbidden here, most likely by a seccomp profile: "
                "container runtimes forbid it by default. Run the container with a profile that "
                "allows io_uring_setup, io_uring_enter and io_uring_register "
                "(docker: --security-opt seccomp=FILE; Kubernetes: "
                "securityContext.seccompProfile)");
        return ERR_DENIED;
    case ENOSYS:
        snprintf(
            why, why_size,
            "the kernel (%s) offers no io_uring: it is too old (5.19 is needed, "
            "6.1 or newer recommended), built without it, or a sandbox such as gVisor hides it",
            un.release);
        return ERR_UNSUPPORTED;
    case ENOMEM:
        snprintf(
            why, why_size,
            "no memory for io_uring: its rings count as locked memory, of which %" PRIu64
            " KiB are allowed here; 8 MiB is plenty. Raise the limit (ulimit -l 8192; systemd: "
            "LimitMEMLOCK=, docker: --ulimit memlock=8388608) or lower core.ring_entries",
            locked_memory_limit() / KIB);
        return ERR_NO_MEMORY;
    case EMFILE:
    case ENFILE:
        snprintf(why, why_size, "too many open files: raise ulimit -n (LimitNOFILE=)");
        return ERR_BUSY;
    default:
        snprintf(why, why_size, "io_uring can't be set up on kernel %s: %s", un.release,
                 strerror(errno_value));
        return err_from_errno(errno_value);
    }
}

/* ---- probing ---- */

/* liburing fills the index array at set-up, and before 2.5 does so even where NO_SQARRAY has left
 * none, over the ring itself. (Before 2.4 the header tells no version.) */
static bool sqarray_avoidable(void)
{
#if defined(IO_URING_VERSION_MAJOR)
    return IO_URING_VERSION_MAJOR > 2 || IO_URING_VERSION_MINOR >= 5;
#else
    return false;
#endif
}

/* Sets up the ring with the best flags the kernel takes. Returns 0 or -errno of the last try. */
static int ring_setup(struct io *io, u32 entries, u32 *flags_out)
{
    const u32 base = IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE;
    const u32 defer = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                      IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    const u32 tries[] = {
        base | defer | URING_SETUP_NO_SQARRAY,
        base | defer,
        base | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        base,
    };
    int rc = -EINVAL;
    for (u32 i = sqarray_avoidable() ? 0 : 1; i < ARRAY_COUNT(tries); i++) {
        struct io_uring_params p = { .flags = tries[i], .cq_entries = entries * CQ_PER_SQ };
        rc = io_uring_queue_init_params(entries, &io->ring, &p);
        if (rc == 0) {
            *flags_out = tries[i];
            return 0;
        }
        if (rc != -EINVAL)
            return rc;
    }
    return rc;
}

static void sq_identity(struct io *io, u32 setup_flags)
{
    if (setup_flags & URING_SETUP_NO_SQARRAY)
        return;
    for (u32 i = 0; i < io->ring.sq.ring_entries; i++)
        io->ring.sq.array[i] = i;
}

static void ring_tune(struct io *io)
{
    io->enter_fd = (u32)io->ring.ring_fd;
    io->enter_flags = 0;
    if (io_uring_register_ring_fd(&io->ring) == 1) {
        io->enter_fd = (u32)io->ring.enter_ring_fd;
        io->enter_flags |= IORING_ENTER_REGISTERED_RING;
    }
    if (io->ring.features & URING_FEAT_NO_IOWAIT)
        io->enter_flags |= URING_ENTER_NO_IOWAIT;
    /* A shard's disk work rarely leaves the inline path; when it does, a few workers do. */
    u32 workers[2] = { 8, 8 };
    (void)io_uring_register_iowq_max_workers(&io->ring, workers);
}

static bool probe_ops(struct io *io, char *why, size_t why_size)
{
    struct io_uring_probe *p = io_uring_get_probe_ring(&io->ring);
    if (!p) {
        snprintf(why, why_size,
                 "the kernel does not tell what its io_uring can do; 5.19 is needed");
        return false;
    }
    static const struct {
        int op;
        const char *name;
    } needed[] = {
        { IORING_OP_ACCEPT, "accept" },
        { IORING_OP_RECV, "recv" },
        { IORING_OP_SEND, "send" },
        { IORING_OP_SENDMSG, "sendmsg" },
        { IORING_OP_READ, "read" },
        { IORING_OP_WRITE, "write" },
        { IORING_OP_READ_FIXED, "read_fixed" },
        { IORING_OP_WRITE_FIXED, "write_fixed" },
        { IORING_OP_ASYNC_CANCEL, "cancel" },
        { IORING_OP_CLOSE, "close" },
    };
    bool good = true;
    for (u32 i = 0; good && i < ARRAY_COUNT(needed); i++)
        if (!io_uring_opcode_supported(p, needed[i].op)) {
            snprintf(why, why_size, "the kernel's io_uring has no %s; 5.19 is needed",
                     needed[i].name);
            good = false;
        }
    io->has_msg_ring = io_uring_opcode_supported(p, IORING_OP_MSG_RING);
    io->has_sendmsg_zc = io_uring_opcode_supported(p, IORING_OP_SENDMSG_ZC);
    io->has_zc_report = (io->ring.features & URING_FEAT_REG_REG_RING) != 0;
    io_uring_free_probe(p);
    if (good && !(io->ring.features & IORING_FEAT_EXT_ARG)) {
        snprintf(why, why_size, "the kernel's io_uring has no timed waits; 5.19 is needed");
        good = false;
    }
    return good;
}

/* ---- receive buffers ---- */

static u32 power_of_two(u64 v)
{
    u32 p = 1;
    while (p < v)
        p *= 2;
    return p;
}

static int bufs_setup(struct io *io, const struct config *cfg)
{
    io->buf_count = MIN(power_of_two(config_u64(cfg, CFG_net_recv_buffers)), 32768u);
    io->buf_bytes = (u32)align_up(config_u64(cfg, CFG_net_recv_buffer_bytes), 4096);
    io->buf_ring_bytes = io->buf_count * sizeof(struct io_uring_buf);
    io->buf_ring = mem_map(io->buf_ring_bytes, false);
    io->bufs = mem_map((u64)io->buf_count * io->buf_bytes, false);
    if (!io->buf_ring || !io->bufs)
        return -ENOMEM;
    struct io_uring_buf_reg reg = { .ring_addr = (u64)(uintptr_t)io->buf_ring,
                                    .ring_entries = io->buf_count,
                                    .bgid = 0 };
    int rc = io_uring_register_buf_ring(&io->ring, &reg, 0);
    if (rc != 0)
        return rc;
    io->buf_free = mem_alloc(io->buf_count * sizeof *io->buf_free);
    for (u32 i = 0; i < io->buf_count; i++)
        io->buf_free[i] = (u16)(io->buf_count - 1 - i); /* low addresses on top */
    io->buf_free_count = io->buf_count;
    MEM_POISON(io->bufs, (u64)io->buf_count * io->buf_bytes);
    io->buf_ring_target = MIN(BUF_RING_START, io->buf_count);
    return 0;
}

/* ---- life ---- */

static const char *yes_no(bool b)
{
    return b ? "yes" : "no";
}

static void features_tell(struct io *io, u32 setup_flags)
{
    struct utsname un = { 0 };
    (void)uname(&un);
    snprintf(io->features.text, sizeof io->features.text,
             "io=uring kernel=%s single_issuer=%s defer_taskrun=%s coop_taskrun=%s no_sqarray=%s "
             "registered_ring=%s no_iowait=%s msg_ring=%s send_zc=%s fixed_buffers=%s sq=%u cq=%u "
             "recv_buffers=%u recv_buffer_bytes=%u",
             un.release, yes_no(setup_flags & IORING_SETUP_SINGLE_ISSUER),
             yes_no(setup_flags & IORING_SETUP_DEFER_TASKRUN),
             yes_no(setup_flags & IORING_SETUP_COOP_TASKRUN),
             yes_no(setup_flags & URING_SETUP_NO_SQARRAY),
             yes_no(io->enter_flags & IORING_ENTER_REGISTERED_RING),
             yes_no(io->enter_flags & URING_ENTER_NO_IOWAIT), yes_no(io->has_msg_ring),
             yes_no(io->has_sendmsg_zc), yes_no(io->region_slots > 0), io->ring.sq.ring_entries,
             io->ring.cq.ring_entries, io->buf_count, io->buf_bytes);
}

static void io_release(struct io *io)
{
    if (io->event_fd >= 0)
        close(io->event_fd);
    if (io->buf_ring)
        mem_unmap(io->buf_ring, io->buf_ring_bytes);
    if (io->bufs)
        mem_unmap(io->bufs, (u64)io->buf_count * io->buf_bytes);
    mem_free(io->buf_free);
    mem_free(io->msghdrs);
    mem_free(io->backlog);
    MAGIC_POISON(io);
    mem_unmap(io, sizeof *io);
}

/* The kernel counts locked memory over all processes of a user. So where it is limited, a node that
 * registered as many images as it can would leave nothing for the rings of another, nor for those
 * of its own next start, for which the kernel frees the old ones in its own time. */
static bool locked_memory_ample(const struct config *cfg)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &head, data) == 0 && data[0].effective & 1u << CAP_IPC_LOCK)
        return true;
    return locked_memory_limit() / 2 >= config_u64(cfg, CFG_memory_budget);
}

static void regions_setup(struct io *io)
{
    if (locked_memory_ample(io->cfg) &&
        io_uring_register_buffers_sparse(&io->ring, REGIONS_MAX) == 0) {
        io->region_slots = REGIONS_MAX;
        return;
    }
    if (io->index == 0)
        LOG(INFO, io_regions_not_registered,
            "memlock_bytes=%" PRIu64
            " effect=\"writes pin their memory each time, a little slower\" "
            "remedy=\"ulimit -l unlimited, LimitMEMLOCK=infinity\"",
            locked_memory_limit());
}

static err io_try(const struct config *cfg, u32 index, struct io **out, char *why, size_t why_size)
{
    struct io *io = mem_map(sizeof *io, false); /* cache-line aligned */
    if (!io)
        return create_failed(ENOMEM, why, why_size);
    MAGIC_INIT(io, IO_MAGIC);
    io->index = index;
    io->cfg = cfg;
    io->event_fd = -1;
    u32 setup_flags = 0;
    int rc = ring_setup(io, (u32)config_u64(cfg, CFG_core_ring_entries), &setup_flags);
    if (rc != 0) {
        io_release(io);
        return create_failed(-rc, why, why_size);
    }
    sq_identity(io, setup_flags);
    ring_tune(io);
    err e = ERR_UNSUPPORTED;
    if (!probe_ops(io, why, why_size))
        goto fail;
    rc = bufs_setup(io, cfg);
    if (rc == -EINVAL) {
        snprintf(why, why_size,
                 "the kernel's io_uring has no provided buffer rings; 5.19 is needed");
        goto fail;
    }
    io->event_fd = eventfd(0, EFD_CLOEXEC);
    if (rc != 0 || io->event_fd < 0) {
        e = create_failed(rc != 0 ? -rc : errno, why, why_size);
        goto fail;
    }
    io->msghdrs = mem_alloc(io->ring.sq.ring_entries * sizeof *io->msghdrs);
    regions_setup(io);
    features_tell(io, setup_flags);
    uring_event_arm(io);
    *out = io;
    return ERR_NONE;
fail:
    io_uring_queue_exit(&io->ring);
    io_release(io);
    return e;
}

/* Rings of a process that ended a moment ago may still count as its user's locked memory. */
err io_create(const struct config *cfg, u32 index, struct io **out, char *why, size_t why_size)
{
    err e = io_try(cfg, index, out, why, why_size);
    for (u32 i = 0; e == ERR_NO_MEMORY && i < MEMORY_TRIES; i++) {
        if (i == 0)
            LOG(INFO, io_waits_for_memory, "shard=%u seconds=%u why=\"%s\"", index,
                MEMORY_TRIES * MEMORY_REST_US / 1000000u, why);
        usleep(MEMORY_REST_US);
        e = io_try(cfg, index, out, why, why_size);
    }
    return e;
}

void io_destroy(struct io *io)
{
    MAGIC_CHECK(io, IO_MAGIC);
    CHECK(io->inflight == 0);
    uring_flush_last(io);
    io_uring_queue_exit(&io->ring);
    io_release(io);
}

const struct io_features *io_features(const struct io *io)
{
    return &io->features;
}

/* ---- listening ---- */

static err listen_failed(const char *host, u16 port, int errno_value, char *why, size_t why_size)
{
    const char *remedy = "";
    if (errno_value == EADDRINUSE)
        remedy = ": another program uses the port; stop it, or choose another "
                 "port (-w net.listen=HOST:PORT)";
    else if (errno_value == EACCES)
        remedy = ": ports below 1024 need CAP_NET_BIND_SERVICE";
    else if (errno_value == EADDRNOTAVAIL)
        remedy = ": no interface of this machine has that address";
    snprintf(why, why_size, "can't listen on %s port %u: %s%s", host, port, strerror(errno_value),
             remedy);
    return errno_value == EADDRINUSE ? ERR_EXISTS : err_from_errno(errno_value);
}

static void listen_option(int fd, int level, int name, i64 value)
{
    int v = (int)value;
    (void)setsockopt(fd, level, name, &v, sizeof v);
}

/* Accepted sockets inherit all of these, which spares system calls for each connection. */
static void listen_options(int fd, const struct config *cfg)
{
    listen_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    listen_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    listen_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    /* Peers that vanished are found after 60 s + 6 × 10 s. */
    listen_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    listen_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
    listen_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
    listen_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 6);
    if (config_i64(cfg, CFG_net_socket_send_bytes) > 0)
        listen_option(fd, SOL_SOCKET, SO_SNDBUF, config_i64(cfg, CFG_net_socket_send_bytes));
    if (config_i64(cfg, CFG_net_socket_recv_bytes) > 0)
        listen_option(fd, SOL_SOCKET, SO_RCVBUF, config_i64(cfg, CFG_net_socket_recv_bytes));
}

/* The listening socket or -errno. Without cfg it is a probe: nobody else may be bound there. */
static int listen_try(const struct config *cfg, const struct addrinfo *ai)
{
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (cfg)
        listen_options(fd, cfg);
    else
        listen_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (ai->ai_family == AF_INET6)
        listen_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 ||
        (cfg && listen(fd, (int)config_i64(cfg, CFG_net_backlog)) != 0)) {
        int e = errno;
        close(fd);
        return -e;
    }
    return fd;
}

static u16 sockaddr_port(const struct sockaddr_storage *ss)
{
    struct sockaddr_in6 v6; /* the port lies at the same place in both */
    _Static_assert(offsetof(struct sockaddr_in6, sin6_port) ==
                       offsetof(struct sockaddr_in, sin_port),
                   "one read serves IPv4 and IPv6");
    memcpy(&v6, ss, sizeof v6);
    return ntohs(v6.sin6_port);
}

/* Tries the addresses of a name in turn. A descriptor, or -1 with *e and `why` set. */
static int listen_open(const struct config *cfg, const char *host, u16 port, err *e, char *why,
                       size_t why_size)
{
    bool any = strcmp(host, "*") == 0 || host[0] == '\0';
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(any ? NULL : host, service, &hints, &found);
    if (rc != 0) {
        snprintf(why, why_size, "can't listen on %s: %s", host, gai_strerror(rc));
        *e = ERR_NOT_FOUND;
        return -1;
    }
    int fd = -EADDRNOTAVAIL;
    /* For "any", IPv6 first: such a socket takes IPv4 as well. */
    for (int pass = any ? 0 : 1; fd < 0 && pass < 2; pass++)
        for (const struct addrinfo *ai = found; ai && fd < 0; ai = ai->ai_next)
            if (pass == 1 || ai->ai_family == AF_INET6)
                fd = listen_try(cfg, ai);
    freeaddrinfo(found);
    *e = fd < 0 ? listen_failed(host, port, -fd, why, why_size) : ERR_NONE;
    return fd;
}

err io_listen(struct io *io, const char *host, u16 port, io_fd *out, u16 *bound_port, char *why,
              size_t why_size)
{
    err e;
    int fd = listen_open(io->cfg, host, port, &e, why, why_size);
    if (e != ERR_NONE)
        return e;
    struct sockaddr_storage ss = { 0 };
    socklen_t len = sizeof ss;
    CHECK(getsockname(fd, (struct sockaddr *)&ss, &len) == 0);
    *bound_port = sockaddr_port(&ss);
    *out = fd;
    return ERR_NONE;
}

err io_listen_probe(const char *host, u16 port, char *why, size_t why_size)
{
    err e;
    int fd = listen_open(NULL, host, port, &e, why, why_size);
    if (e == ERR_NONE)
        close(fd);
    return e;
}

void io_peer_name(struct io *io, io_fd fd, char *buf, size_t size)
{
    (void)io;
    struct sockaddr_storage ss = { 0 };
    socklen_t len = sizeof ss;
    char host[INET6_ADDRSTRLEN];
    buf[0] = '\0';
    if (getpeername(fd, (struct sockaddr *)&ss, &len) != 0 ||
        getnameinfo((struct sockaddr *)&ss, len, host, sizeof host, NULL, 0, NI_NUMERICHOST) != 0)
        return;
    const char *text = strncmp(host, "::ffff:", 7) == 0 ? host + 7 : host;
    bool brackets = strchr(text, ':') != NULL;
    snprintf(buf, size, brackets ? "[%s]:%u" : "%s:%u", text, sockaddr_port(&ss));
}

/* ---- files ---- */

static err folder_sync(const char *path)
{
    char folder[PATH_MAX];
    size_t n = strlen(path);
    if (n >= sizeof folder)
        return ERR_INVALID_REQUEST;
    memcpy(folder, path, n + 1);
    char *slash = strrchr(folder, '/');
    if (slash == folder)
        slash++;
    if (slash)
        *slash = '\0';
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_from_errno(errno);
    err e = fsync(fd) == 0 ? ERR_NONE : err_from_errno(errno);
    close(fd);
    return e;
}

static err file_allocate(int fd, const char *path, u64 bytes)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_from_errno(errno);
    if ((u64)st.st_size >= bytes)
        return ERR_NONE;
    int rc = posix_fallocate(fd, 0, (off_t)bytes);
    if (rc != 0) {
        /* What was taken until the disk was full is given back: others need it. */
        if (st.st_size == 0)
            (void)unlink(path);
        else if (ftruncate(fd, st.st_size) != 0)
            LOG(WARN, file_not_shortened, "path=%s errno=%d", path, errno);
        return err_from_errno(rc);
    }
    if (fsync(fd) != 0)
        return err_from_errno(errno);
    return folder_sync(path);
}

err io_file_open(struct io *io, const char *path, u32 flags, u64 *bytes, io_fd *out)
{
    (void)io;
    int oflags = O_RDWR | O_CLOEXEC | (flags & IO_FILE_CREATE ? O_CREAT : 0) |
                 (flags & IO_FILE_EMPTY ? O_TRUNC : 0);
    int fd = open(path, oflags | (flags & IO_FILE_DIRECT ? O_DIRECT : 0), 0640);
    if (fd < 0 && errno == EINVAL && (flags & IO_FILE_DIRECT)) {
        LOG(WARN, io_direct_refused, "path=%s remedy=\"put it on a file system with O_DIRECT\"",
            path);
        fd = open(path, oflags, 0640);
    }
    if (fd < 0)
        return err_from_errno(errno);
    err e = flags & IO_FILE_CREATE ? file_allocate(fd, path, *bytes) : ERR_NONE;
    struct stat st = { 0 };
    if (e == ERR_NONE && fstat(fd, &st) != 0)
        e = err_from_errno(errno);
    if (e != ERR_NONE) {
        close(fd);
        return e;
    }
    *bytes = (u64)st.st_size;
    *out = fd;
    return ERR_NONE;
}

void io_file_close(struct io *io, io_fd fd)
{
    (void)io;
    CHECK(close(fd) == 0 || errno == EIO || errno == ENOSPC);
}

err io_file_sync(struct io *io, io_fd fd)
{
    (void)io;
    return fdatasync(fd) == 0 ? ERR_NONE : err_from_errno(errno);
}

/* ---- registered memory ---- */

static bool region_set(struct io *io, u32 slot, void *p, u64 bytes)
{
    struct iovec iov = { p, bytes };
    u64 tag = 0;
    return io_uring_register_buffers_update_tag(&io->ring, slot, &iov, (__u64 *)&tag, 1) == 1;
}

/* Told once: each further image would be refused for the same reason. */
static void region_refused(struct io *io, u64 bytes)
{
    if (io->region_refusal_told || io->region_slots == 0)
        return;
    io->region_refusal_told = true;
    LOG(WARN, io_region_not_registered,
        "shard=%u bytes=%" PRIu64 " memlock_bytes=%" PRIu64
        " remedy=\"raise the memlock limit (ulimit -l, LimitMEMLOCK=infinity); "
        "works without, a little slower\"",
        io->index, bytes, locked_memory_limit());
}

bool io_register_region(struct io *io, void *p, u64 bytes)
{
    for (u64 at = 0; at < bytes; at += REGION_BYTES_MAX) {
        u64 part = MIN(bytes - at, REGION_BYTES_MAX);
        u32 slot = 0;
        while (slot < io->region_slots && io->regions[slot].start)
            slot++;
        if (slot == io->region_slots || !region_set(io, slot, (u8 *)p + at, part)) {
            region_refused(io, bytes);
            io_unregister_region(io, p);
            return false;
        }
        io->regions[slot] = (struct region){ (u8 *)p + at, part, p };
    }
    return true;
}

void io_unregister_region(struct io *io, void *p)
{
    for (u32 slot = 0; slot < io->region_slots; slot++)
        if (io->regions[slot].owner == p) {
            (void)region_set(io, slot, NULL, 0);
            io->regions[slot] = (struct region){ 0 };
        }
}
