/* io.h on the real ring: files with O_DIRECT, sockets on loopback, cancel, many ops at once. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shard_fixture.h"

static struct fixture fix;
static struct shard *s;

static void noted(struct io_op *op)
{
    CHECK(io_op_idle(op));
}

static void file_path(char *buf, size_t size)
{
    snprintf(buf, size, "io_test.%d.tmp", (int)getpid());
}

static void files_are_written_and_read_directly(void **state)
{
    (void)state;
    s = fixture_single(&fix, NULL);
    char path[64];
    file_path(path, sizeof path);
    u64 bytes = 4 * MIB;
    io_fd fd;
    assert_int_equal(io_file_open(s->io, path, IO_FILE_CREATE | IO_FILE_DIRECT, &bytes, &fd),
                     ERR_NONE);
    unlink(path);
    assert_int_equal(bytes, 4 * MIB);
    u8 *mem = mem_map(2 * MIB, false);
    bool fixed = io_register_region(s->io, mem, 1 * MIB);
    print_message("fixed buffers: %d\n", fixed);
    for (u32 i = 0; i < MIB; i++)
        mem[i] = (u8)(i * 7 + i / 4096);
    struct io_op ops[16] = { 0 };
    for (u32 i = 0; i < 16; i++)
        io_write(s->io, &ops[i], fd, mem + i * 65536, 65536, i * 65536, true, noted);
    for (u32 i = 0; i < 16; i++) {
        TURN_UNTIL(s, io_op_idle(&ops[i]));
        assert_int_equal(ops[i].err, ERR_NONE);
        assert_int_equal(ops[i].result, 65536);
    }
    io_read(s->io, &ops[0], fd, mem + MIB, MIB, 0, noted); /* not in the registered half */
    TURN_UNTIL(s, io_op_idle(&ops[0]));
    assert_int_equal(ops[0].result, MIB);
    assert_memory_equal(mem, mem + MIB, MIB);
    io_read(s->io, &ops[0], fd, mem, 65536, 4 * MIB - 4096, noted); /* short at the end */
    TURN_UNTIL(s, io_op_idle(&ops[0]));
    assert_int_equal(ops[0].err, ERR_NONE);
    assert_int_equal(ops[0].result, 4096);
    if (fixed)
        io_unregister_region(s->io, mem);
    io_file_close(s->io, fd);
    assert_int_equal(io_file_open(s->io, "/nonexistent/x", 0, &bytes, &fd), ERR_NOT_FOUND);
    mem_unmap(mem, 2 * MIB);
    fixture_single_free(&fix);
}

/* ---- sockets ---- */

static io_fd accepted[64];
static u32 accepted_count;

static void on_accept(struct io_op *op)
{
    if (op->err == ERR_NONE) {
        CHECK(!io_op_idle(op));
        accepted[accepted_count++] = (io_fd)op->result;
    }
}

static int dial(u16 port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    return fd;
}

static struct io_op accept_op;
static io_fd listener;

static u16 listen_start(void)
{
    char why[256];
    u16 port = 0;
    assert_int_equal(io_listen(s->io, "127.0.0.1", 0, &listener, &port, why, sizeof why), ERR_NONE);
    accepted_count = 0;
    io_accept(s->io, &accept_op, listener, on_accept);
    return port;
}

static void listen_end(void)
{
    io_cancel(s->io, &accept_op);
    TURN_UNTIL(s, io_op_idle(&accept_op));
    assert_int_equal(accept_op.err, ERR_CANCELED);
    io_close(s->io, listener);
}

static const char *const few_buffers[] = { "net.recv_buffers=16", "net.recv_buffer_bytes=4k",
                                           "net.send_zc_min_bytes=256k", "core.ring_entries=64",
                                           NULL };

static void sockets_receive_into_pooled_buffers(void **state)
{
    (void)state;
    s = fixture_single(&fix, few_buffers);
    u16 port = listen_start();
    int peers[20];
    for (u32 i = 0; i < 20; i++)
        peers[i] = dial(port);
    TURN_UNTIL(s, accepted_count == 20);
    char name[64];
    io_peer_name(s->io, accepted[0], name, sizeof name);
    assert_memory_equal(name, "127.0.0.1:", 10);
    struct io_op ops[20] = { 0 };
    for (u32 i = 0; i < 20; i++) {
        io_recv_pooled(s->io, &ops[i], accepted[i], noted);
        assert_int_equal(write(peers[i], "hello", 5), 5);
    }
    u32 got = 0, refused = 0;
    for (u32 i = 0; i < 20; i++) {
        TURN_UNTIL(s, io_op_idle(&ops[i]));
        if (ops[i].err == ERR_NO_MEMORY) {
            refused++;
            continue;
        }
        assert_int_equal(ops[i].result, 5);
        assert_memory_equal(ops[i].buf, "hello", 5);
        got++;
    }
    assert_int_equal(got, 16); /* all buffers, then the pool is empty */
    assert_int_equal(refused, 4);
    for (u32 i = 0; i < 20; i++)
        if (ops[i].err == ERR_NONE)
            io_buf_release(s->io, &ops[i]);
    for (u32 i = 0; i < 20; i++)
        if (ops[i].err != ERR_NONE) {
            io_recv_pooled(s->io, &ops[i], accepted[i], noted);
            TURN_UNTIL(s, io_op_idle(&ops[i]));
            assert_int_equal(ops[i].result, 5);
            io_buf_release(s->io, &ops[i]);
        }
    close(peers[0]);
    io_recv_pooled(s->io, &ops[0], accepted[0], noted);
    TURN_UNTIL(s, io_op_idle(&ops[0]));
    assert_int_equal(ops[0].err, ERR_NONE);
    assert_int_equal(ops[0].result, 0); /* the peer closed */
    io_recv_pooled(s->io, &ops[1], accepted[1], noted);
    io_close(s->io, accepted[1]); /* ends what is in flight */
    TURN_UNTIL(s, io_op_idle(&ops[1]));
    io_recv_pooled(s->io, &ops[2], accepted[2], noted);
    io_cancel(s->io, &ops[2]);
    TURN_UNTIL(s, io_op_idle(&ops[2]));
    assert_int_equal(ops[2].err, ERR_CANCELED);
    for (u32 i = 0; i < 20; i++) {
        if (i != 1)
            io_close(s->io, accepted[i]);
        if (i != 0)
            close(peers[i]);
    }
    listen_end();
    fixture_single_free(&fix);
}

/* Sends `bytes` in several pieces to another socket of the same ring, received whole. */
static void transfer(u16 port, u32 bytes)
{
    u32 before = accepted_count;
    int peer = dial(port);
    TURN_UNTIL(s, accepted_count == before + 1);
    u8 *out = mem_map(bytes, false), *in = mem_map(bytes, false);
    for (u32 i = 0; i < bytes; i++)
        out[i] = (u8)(i ^ (i >> 8));
    u32 third = bytes / 3;
    struct iovec iov[3] = { { out, third },
                            { out + third, third },
                            { out + 2 * third, bytes - 2 * third } };
    struct io_op send = { 0 }, recv = { 0 };
    io_recv(s->io, &recv, peer, in, bytes, true, noted);
    io_send(s->io, &send, accepted[before], iov, 3, noted);
    TURN_UNTIL(s, io_op_idle(&send));
    assert_int_equal(send.err, ERR_NONE);
    assert_int_equal(send.result, bytes);
    TURN_UNTIL(s, io_op_idle(&recv));
    assert_int_equal(recv.result, bytes);
    assert_memory_equal(in, out, bytes);
    io_close(s->io, accepted[before]);
    io_close(s->io, peer);
    mem_unmap(out, bytes);
    mem_unmap(in, bytes);
}

static void sends_are_complete_copied_or_not(void **state)
{
    (void)state;
    s = fixture_single(&fix, few_buffers);
    u16 port = listen_start();
    transfer(port, 100);
    transfer(port, 100000);
    transfer(port, 9 * (u32)MIB); /* zero copy, far above the socket's buffer */
    listen_end();
    fixture_single_free(&fix);
}

/* Takes CAP_IPC_LOCK from this thread, which root has, or gives it back. */
static void lock_privilege(bool on)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];
    assert_int_equal(syscall(SYS_capget, &head, data), 0);
    if (!on)
        data[0].effective &= ~(1u << CAP_IPC_LOCK);
    else
        data[0].effective |= data[0].permitted & 1u << CAP_IPC_LOCK;
    assert_int_equal(syscall(SYS_capset, &head, data), 0);
}

static struct rlimit memlock_before;

static void memlock_limit(u64 bytes)
{
    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &memlock_before), 0);
    struct rlimit little = memlock_before;
    little.rlim_cur = MIN(memlock_before.rlim_max, bytes);
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &little), 0);
    lock_privilege(false);
}

static void memlock_limit_end(void)
{
    lock_privilege(true);
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &memlock_before), 0);
}

static void sends_whose_pages_cant_be_pinned_are_copied(void **state)
{
    (void)state;
    memlock_limit(4 * MIB);
    s = fixture_single(&fix, few_buffers);
    u16 port = listen_start();
    transfer(port, 9 * (u32)MIB);
    listen_end();
    fixture_single_free(&fix);
    memlock_limit_end();
}

/* It is the user's, of all processes together: others need it for their rings. */
static void little_locked_memory_is_left_to_rings(void **state)
{
    (void)state;
    u8 *mem = mem_map(1 * MIB, false);
    memlock_limit(8 * MIB);
    s = fixture_single(&fix, few_buffers);
    assert_false(io_register_region(s->io, mem, 1 * MIB));
    fixture_single_free(&fix);
    memlock_limit_end();
    mem_unmap(mem, 1 * MIB);
}

/* The kernel frees the rings of a process some time after it ended. */
static void *memory_comes_back(void *arg)
{
    usleep(200 * 1000);
    (void)!setrlimit(RLIMIT_MEMLOCK, &memlock_before);
    return arg;
}

static void rings_wait_for_locked_memory(void **state)
{
    (void)state;
    pthread_t thread;
    memlock_limit(0);
    assert_int_equal(pthread_create(&thread, NULL, memory_comes_back, NULL), 0);
    s = fixture_single(&fix, few_buffers);
    assert_int_equal(pthread_join(thread, NULL), 0);
    fixture_single_free(&fix);
    memlock_limit_end();
}

static void send_to_a_closed_peer_fails(void **state)
{
    (void)state;
    s = fixture_single(&fix, few_buffers);
    u16 port = listen_start();
    int peer = dial(port);
    TURN_UNTIL(s, accepted_count == 1);
    close(peer);
    u8 *out = mem_map(8 * MIB, false);
    struct io_op send = { 0 };
    for (u32 i = 0; i < 2; i++) {
        struct iovec iov = { out, 8 * MIB };
        io_send(s->io, &send, accepted[0], &iov, 1, noted);
        TURN_UNTIL(s, io_op_idle(&send));
    }
    assert_int_equal(send.err, ERR_CLOSED);
    io_close(s->io, accepted[0]);
    mem_unmap(out, 8 * MIB);
    listen_end();
    fixture_single_free(&fix);
}

/* More ops at once than the submission queue holds. */
static void a_full_queue_is_submitted_and_goes_on(void **state)
{
    (void)state;
    s = fixture_single(&fix, few_buffers);
    char path[64];
    file_path(path, sizeof path);
    u64 bytes = MIB;
    io_fd fd;
    assert_int_equal(io_file_open(s->io, path, IO_FILE_CREATE, &bytes, &fd), ERR_NONE);
    unlink(path);
    static struct io_op ops[2000];
    u8 *mem = mem_map(MIB, false);
    for (u32 i = 0; i < 2000; i++)
        io_read(s->io, &ops[i], fd, mem + (i % 256) * 4096, 4096, (i % 256) * 4096, noted);
    for (u32 i = 0; i < 2000; i++) {
        TURN_UNTIL(s, io_op_idle(&ops[i]));
        assert_int_equal(ops[i].result, 4096);
    }
    io_file_close(s->io, fd);
    mem_unmap(mem, MIB);
    fixture_single_free(&fix);
}

static void listening_tells_why_it_failed(void **state)
{
    (void)state;
    s = fixture_single(&fix, NULL);
    char why[256] = "";
    io_fd fd;
    u16 port;
    int plain = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof a;
    CHECK(bind(plain, (struct sockaddr *)&a, sizeof a) == 0 && listen(plain, 1) == 0);
    CHECK(getsockname(plain, (struct sockaddr *)&a, &len) == 0);
    assert_int_equal(io_listen(s->io, "127.0.0.1", ntohs(a.sin_port), &fd, &port, why, sizeof why),
                     ERR_EXISTS);
    assert_non_null(strstr(why, "another program"));
    assert_int_not_equal(io_listen(s->io, "192.0.2.1", 0, &fd, &port, why, sizeof why), ERR_NONE);
    assert_non_null(strstr(why, "192.0.2.1"));
    close(plain);
    /* Two listeners of one node share a port; the probe of a second node sees them. */
    io_fd first, second;
    assert_int_equal(io_listen(s->io, "127.0.0.1", 0, &first, &port, why, sizeof why), ERR_NONE);
    assert_int_equal(io_listen(s->io, "127.0.0.1", port, &second, &port, why, sizeof why),
                     ERR_NONE);
    assert_int_equal(io_listen_probe("127.0.0.1", port, why, sizeof why), ERR_EXISTS);
    io_close(s->io, first);
    io_close(s->io, second);
    (void)io_turn(s->io, 0, 0);
    assert_int_equal(io_listen_probe("127.0.0.1", port, why, sizeof why), ERR_NONE);
    fixture_single_free(&fix);
}

/* What a container's default seccomp profile does. In a child: a filter can't be taken off. */
static void forbidden_rings_are_explained(void **state)
{
    (void)state;
    static const int errnos[] = { EPERM, ENOSYS };
    for (u32 i = 0; i < ARRAY_COUNT(errnos); i++) {
        struct sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (u32)errnos[i]),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog prog = { ARRAY_COUNT(code), code };
        pid_t child = fork();
        if (child == 0) {
            char why[512] = "";
            struct io *io = NULL;
            fixture_init(&fix, 1, NULL);
            if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
                prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != 0)
                _exit(0); /* no filters here: nothing to test */
            err e = io_create(&fix.cfg, 0, &io, why, sizeof why);
            bool good = errnos[i] == EPERM ? e == ERR_DENIED && strstr(why, "seccomp")
                                           : e == ERR_UNSUPPORTED && strstr(why, "kernel");
            _exit(good ? 0 : 1);
        }
        int status = -1;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_written_and_read_directly),
        cmocka_unit_test(sockets_receive_into_pooled_buffers),
        cmocka_unit_test(sends_are_complete_copied_or_not),
        cmocka_unit_test(sends_whose_pages_cant_be_pinned_are_copied),
        cmocka_unit_test(little_locked_memory_is_left_to_rings),
        cmocka_unit_test(rings_wait_for_locked_memory),
        cmocka_unit_test(send_to_a_closed_peer_fails),
        cmocka_unit_test(a_full_queue_is_submitted_and_goes_on),
        cmocka_unit_test(forbidden_rings_are_explained),
        cmocka_unit_test(listening_tells_why_it_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
