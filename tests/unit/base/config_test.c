/* The configuration: grammar, units, precedence, agreement of keys, live changes. */
#include "config.h"
#include "log.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cmocka.h>

static struct config cfg;
static char why[1024];

static int setup(void **state)
{
    (void)state;
    config_init(&cfg);
    why[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    config_free(&cfg);
    return 0;
}

static err set(const char *pair)
{
    return config_set_pair(&cfg, pair, CONFIG_FILE, why, sizeof why);
}

static void defaults_are_valid_and_names_unique(void **state)
{
    (void)state;
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_NONE);
    assert_string_equal(config_str(&cfg, CFG_wal_path), "./leat-data/wal");
    assert_string_equal(config_str(&cfg, CFG_store_url), "file://./leat-data/store");
    for (u32 k = 0; k < CFG_COUNT; k++) {
        assert_int_equal(config_find(config_defs[k].name), k);
        if (config_defs[k].kafka)
            assert_int_equal(config_find(config_defs[k].kafka), k);
        size_t len = strlen(config_defs[k].help);
        assert_true(len > 10 && config_defs[k].help[len - 1] == '.');
    }
}

static void units(void **state)
{
    (void)state;
    static const struct {
        const char *pair;
        enum config_key key;
        i64 value;
    } good[] = {
        { "wal.size=2g", CFG_wal_size, 2 * (i64)GIB },
        { "wal.size = 2 GiB", CFG_wal_size, 2 * (i64)GIB },
        { "wal.size=1073741824", CFG_wal_size, (i64)GIB },
        { "memory.budget=0%", CFG_memory_budget, 32 * (i64)MIB }, /* its least */
        { "wal.seal_age=2s", CFG_wal_seal_age_ms, 2000 },
        { "wal.seal_age=1500", CFG_wal_seal_age_ms, 1500 },
        { "wal.seal_age=20000us", CFG_wal_seal_age_ms, 20 },
        { "log.retention.ms=7d", CFG_log_retention_ms, 604800000 },
        { "log.retention.ms=-1", CFG_log_retention_ms, -1 },
        { "log.retention.hours=2d", CFG_log_retention_hours, 48 },
        { "log.retention.ms=", CFG_log_retention_ms, CONFIG_UNSET },
        { "core.pin=off", CFG_core_pin, 0 },
        { "core.pin=TRUE", CFG_core_pin, 1 },
        { "net.advertise=shard", CFG_net_advertise, 1 },
        { "log.cleanup.policy=delete, compact", CFG_log_cleanup_policy, 3 },
        { "log.cleanup.policy=", CFG_log_cleanup_policy, 0 },
        { "log.cleaner.min.cleanable.ratio=.25", CFG_log_cleaner_min_cleanable_ratio, 250000 },
        { "socket.request.max.bytes=1m", CFG_net_max_request_bytes, (i64)MIB },
    };
    for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
        if (set(good[i].pair))
            fail_msg("%s: %s", good[i].pair, why);
        assert_int_equal(config_i64(&cfg, good[i].key), good[i].value);
    }
}

static void a_part_of_the_memory(void **state)
{
    (void)state;
    i64 machine = (i64)mem_machine_bytes();
    assert_true(machine >= 128 * (i64)MIB);
    assert_in_range(config_i64(&cfg, CFG_memory_budget), (u64)machine / 4 - 2 * MIB,
                    (u64)machine / 4);
    assert_int_equal(set("store.cache_bytes=100%"), 0);
    assert_in_range(config_i64(&cfg, CFG_store_cache_bytes), (u64)machine - MIB, (u64)machine);
}

static void a_small_disk_makes_the_default_log_smaller(void **state)
{
    (void)state;
    struct config_synonym syn[CONFIG_SYNONYMS_MAX];
    config_fit_log(&cfg, 0); /* not known */
    config_fit_log(&cfg, 100 * GIB);
    assert_int_equal(config_i64(&cfg, CFG_wal_size), 8 * (i64)GIB);
    config_fit_log(&cfg, 20 * GIB + 12345);
    assert_int_equal(config_i64(&cfg, CFG_wal_size), 2 * (i64)GIB);
    assert_int_equal(config_source(&cfg, CFG_wal_size), CONFIG_DEFAULT);
    assert_int_equal(config_synonyms(&cfg, CFG_wal_size, syn), 1);
    assert_string_equal(syn[0].value, "2147483648");
    config_fit_log(&cfg, 100 * MIB); /* four segments it must hold */
    assert_int_equal(config_i64(&cfg, CFG_wal_size), 4 * config_i64(&cfg, CFG_wal_segment_bytes));
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_NONE);
}

static void a_log_of_a_size_that_was_asked_for_stays_so(void **state)
{
    (void)state;
    assert_int_equal(set("wal.size=8g"), 0);
    config_fit_log(&cfg, 20 * GIB);
    assert_int_equal(config_i64(&cfg, CFG_wal_size), 8 * (i64)GIB);
}

static void the_disk_is_that_of_the_nearest_folder_there_is(void **state)
{
    (void)state;
    struct statvfs v;
    static const char *const paths[] = { "/no-such/folder/at-all", "no-such/folder", "/no-such",
                                         "none-such" };
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++) {
        char pair[128];
        assert_int_equal(statvfs(*paths[i] == '/' ? "/" : ".", &v), 0);
        i64 tenth = (i64)((u64)v.f_blocks * v.f_frsize / 100 * 10 / MIB * MIB);
        config_free(&cfg);
        config_init(&cfg);
        snprintf(pair, sizeof pair, "wal.path=%s", paths[i]);
        assert_int_equal(set(pair), 0);
        config_fit_disk(&cfg);
        assert_int_equal(config_i64(&cfg, CFG_wal_size),
                         MIN(MAX(tenth, 32 * (i64)MIB), 8 * (i64)GIB));
    }
    config_free(&cfg);
    config_init(&cfg);
    assert_int_equal(set("wal.path=none"), 0);
    config_fit_disk(&cfg); /* there is no disk */
    assert_int_equal(config_i64(&cfg, CFG_wal_size), 8 * (i64)GIB);
}

static void bad_values_are_refused_and_change_nothing(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "wal.size=",
        "wal.size=1x",
        "wal.size=1k",
        "wal.size=-1g",
        "wal.size=99999999999999999999",
        "wal.size=9999999999t",
        "wal.size=101%",
        "wal.size=-1%",
        "wal.size=1 %",
        "wal.size=1%x",
        "node.id=1%",
        "wal.seal_age=1us",
        "wal.seal_age=1.5s",
        "core.pin=maybe",
        "net.advertise=core",
        "net.advertise=node|shard",
        "log.cleanup.policy=delete,delete",
        "log.cleanup.policy=delete,",
        "log.cleanup.policy=erase",
        "log.cleaner.min.cleanable.ratio=1.1",
        "log.cleaner.min.cleanable.ratio=-0.1",
        "log.cleaner.min.cleanable.ratio=",
        "num.partitions=3k",
        "num.partitions=0",
        "node.rack=a\tb",
    };
    struct config before = cfg;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        why[0] = '\0';
        if (set(bad[i]) != ERR_INVALID_CONFIG)
            fail_msg("accepted: %s", bad[i]);
        assert_true(strlen(why) > 10);
    }
    assert_memory_equal(&before, &cfg, sizeof cfg);
}

static void an_unknown_key_names_the_nearest(void **state)
{
    (void)state;
    assert_int_equal(set("wal.sise=1g"), ERR_NOT_FOUND);
    assert_non_null(strstr(why, "wal.size"));
    assert_int_equal(set("log.retention=1"), ERR_NOT_FOUND);
    assert_non_null(strstr(why, "log.retention."));
    assert_int_equal(set("something.else.entirely=1"), ERR_NOT_FOUND);
    assert_non_null(strstr(why, "leatctl -a"));
    assert_int_equal(set("just words"), ERR_INVALID_CONFIG);
}

static void texts_tell_file_and_line(void **state)
{
    (void)state;
    static const char text[] = "# comment\r\n; another\n\n  node.id = 7  \n-no.such = 1\n"
                               "wal.size=2g\nwal.sise=1g\nnode.id=8\n";
    log_set_level("error");
    assert_int_equal(config_load_text(&cfg, "leat.conf", text, sizeof text - 1, why, sizeof why),
                     ERR_NOT_FOUND);
    assert_non_null(strstr(why, "leat.conf:7: "));
    assert_int_equal(config_i64(&cfg, CFG_node_id), 7);
    assert_int_equal(config_i64(&cfg, CFG_wal_size), 2 * (i64)GIB);
}

static void the_stronger_source_wins(void **state)
{
    (void)state;
    assert_int_equal(config_set(&cfg, "node.id", "1", CONFIG_COMMAND_LINE, why, sizeof why), 0);
    assert_int_equal(config_set(&cfg, "node.id", "2", CONFIG_FILE, why, sizeof why), 0);
    assert_int_equal(config_i64(&cfg, CFG_node_id), 1);
    assert_int_equal(config_source(&cfg, CFG_node_id), CONFIG_COMMAND_LINE);
    assert_int_equal(set("node.rack=a"), 0);
    assert_int_equal(set("node.rack=b"), 0);
    assert_string_equal(config_str(&cfg, CFG_node_rack), "b");
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void directories_are_read_in_order(void **state)
{
    (void)state;
    char dir[] = "/tmp/leat-config-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    write_file(dir, "20.conf", "node.id=20\n");
    write_file(dir, "10.conf", "node.id=10\nnode.rack=r\n");
    write_file(dir, "30.bak", "node.id=30\n");
    assert_int_equal(config_load_dir(&cfg, dir, why, sizeof why), ERR_NONE);
    assert_int_equal(config_i64(&cfg, CFG_node_id), 20);
    assert_string_equal(config_str(&cfg, CFG_node_rack), "r");
    assert_int_equal(config_load_dir(&cfg, "/nonexistent/x", why, sizeof why), ERR_NONE);
    assert_int_equal(config_load_file(&cfg, "/nonexistent/x", why, sizeof why), ERR_NOT_FOUND);
    static const char *const names[] = { "10.conf", "20.conf", "30.bak" };
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char path[300];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

static void keys_must_agree(void **state)
{
    (void)state;
    assert_int_equal(set("wal.size=16m"), 0);
    assert_int_equal(set("wal.segment_bytes=8m"), 0);
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_INVALID_CONFIG);
    assert_non_null(strstr(why, "wal.segment_bytes"));
    assert_int_equal(set("wal.size=64m"), 0);
    assert_int_equal(set("group.min.session.timeout.ms=1h"), 0);
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_INVALID_CONFIG);
    assert_int_equal(set("group.min.session.timeout.ms=1s"), 0);
    assert_int_equal(set("net.listen=localhost"), 0);
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_INVALID_CONFIG);
    assert_int_equal(set("listeners=PLAINTEXT://:9092"), 0);
    assert_int_equal(set("wal.path=${wal.path}"), 0);
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_INVALID_CONFIG);
    assert_int_equal(set("wal.path=${node.data_dir}/w${node.id}"), 0);
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_NONE);
    assert_string_equal(config_str(&cfg, CFG_wal_path), "./leat-data/w0");
    assert_string_equal(config_str(&cfg, CFG_net_listen), ":9092");
}

static u32 changes;
static void on_change(struct config *c, enum config_key key, void *arg)
{
    assert_ptr_equal(c, &cfg);
    assert_int_equal(key, CFG_wal_seal_age_ms);
    assert_ptr_equal(arg, &changes);
    changes++;
}

/* ---- the files read again ---- */

static struct {
    enum config_key key;
    enum config_reloaded what;
} told[16];
static u32 told_count;

static void reload_told(void *arg, enum config_key k, enum config_reloaded what)
{
    (void)arg;
    assert_true(told_count < ARRAY_COUNT(told));
    told[told_count].key = k;
    told[told_count++].what = what;
}

/* Reads `text` as if the files said so now. */
static err reload(const char *text)
{
    struct config fresh;
    told_count = 0;
    config_init(&fresh);
    assert_int_equal(config_load_text(&fresh, "c.conf", text, strlen(text), why, sizeof why),
                     ERR_NONE);
    assert_int_equal(config_validate(&fresh, why, sizeof why), ERR_NONE);
    err e = config_reload(&cfg, &fresh, reload_told, NULL, why, sizeof why);
    config_free(&fresh);
    return e;
}

static void expect_told(u32 count, enum config_key key, enum config_reloaded what)
{
    assert_int_equal(told_count, count);
    for (u32 i = 0; i < count; i++)
        if (told[i].key == key) {
            assert_int_equal(told[i].what, what);
            return;
        }
    fail_msg("nothing was told of %s", config_defs[key].name);
}

static void a_reload_takes_what_changed_in_the_files(void **state)
{
    (void)state;
    const enum config_key age = CFG_wal_seal_age_ms;
    assert_int_equal(set("wal.seal_age = 5s"), ERR_NONE);
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_NONE);
    assert_int_equal(reload("wal.seal_age = 5s"), ERR_NONE);
    assert_int_equal(told_count, 0);

    assert_int_equal(reload("wal.seal_age = 6s"), ERR_NONE);
    expect_told(1, age, CONFIG_RELOAD_CHANGED);
    assert_int_equal(config_i64(&cfg, age), 6000);

    /* A live change stays while the files say what they said … */
    assert_int_equal(config_set_live(&cfg, "wal.seal_age", "9s", why, sizeof why), ERR_NONE);
    assert_int_equal(reload("wal.seal_age = 6s\nlog.level = warn"), ERR_NONE);
    expect_told(2, age, CONFIG_RELOAD_KEPT);
    expect_told(2, CFG_log_level, CONFIG_RELOAD_CHANGED);
    assert_int_equal(config_i64(&cfg, age), 9000);
    assert_int_equal(config_source(&cfg, age), CONFIG_LIVE);
    /* … goes back to them when it is reset … */
    assert_int_equal(config_reset_live(&cfg, "wal.seal_age", why, sizeof why), ERR_NONE);
    assert_int_equal(config_i64(&cfg, age), 6000);
    /* … and gives way to an edit of its own key, also to its removal. */
    assert_int_equal(config_set_live(&cfg, "wal.seal_age", "9s", why, sizeof why), ERR_NONE);
    assert_int_equal(reload("log.level = warn"), ERR_NONE);
    expect_told(1, age, CONFIG_RELOAD_CHANGED);
    assert_int_equal(config_i64(&cfg, age), 30000);
    assert_int_equal(config_source(&cfg, age), CONFIG_DEFAULT);
}

static void a_reload_tells_what_needs_a_restart_until_it_came(void **state)
{
    (void)state;
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_NONE);
    for (u32 i = 0; i < 2; i++) {
        assert_int_equal(reload("wal.size = 4g\nstore.url = file:///elsewhere"), ERR_NONE);
        expect_told(2, CFG_wal_size, CONFIG_RELOAD_RESTART);
        expect_told(2, CFG_store_url, CONFIG_RELOAD_RESTART);
        assert_int_equal(config_i64(&cfg, CFG_wal_size), 8 * (i64)GIB);
        assert_string_equal(config_str(&cfg, CFG_store_url), "file://./leat-data/store");
    }
}

static void a_reload_is_all_or_nothing(void **state)
{
    (void)state;
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_NONE);
    /* Alone each text is good; with the live value it is not. */
    assert_int_equal(
        config_set_live(&cfg, "log.cleaner.min.compaction.lag.ms", "2h", why, sizeof why),
        ERR_NONE);
    assert_int_equal(reload("log.cleaner.max.compaction.lag.ms = 1h\nlog.level = error"),
                     ERR_INVALID_CONFIG);
    assert_non_null(strstr(why, "compaction.lag"));
    assert_int_equal(told_count, 0);
    assert_string_equal(config_str(&cfg, CFG_log_level), "info");
}

static void a_stored_change_wins_over_the_files(void **state)
{
    (void)state;
    const enum config_key age = CFG_wal_seal_age_ms;
    assert_int_equal(set("wal.seal_age = 5s"), ERR_NONE);
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_NONE);
    assert_int_equal(config_set_stored(&cfg, CONFIG_STORED, "wal.seal_age", "7s", why, sizeof why),
                     ERR_NONE);
    assert_int_equal(config_source(&cfg, age), CONFIG_STORED);
    assert_int_equal(config_kafka_source(CONFIG_STORED), 2);
    assert_int_equal(reload("wal.seal_age = 6s"), ERR_NONE);
    expect_told(1, age, CONFIG_RELOAD_KEPT);
    assert_int_equal(config_i64(&cfg, age), 7000);
    /* A live change is above it, and its reset comes back to it. */
    assert_int_equal(config_set_live(&cfg, "wal.seal_age", "8s", why, sizeof why), ERR_NONE);
    assert_int_equal(config_reset_live(&cfg, "wal.seal_age", why, sizeof why), ERR_NONE);
    assert_int_equal(config_i64(&cfg, age), 7000);
    assert_int_equal(config_set_stored(&cfg, CONFIG_STORED, "wal.seal_age", NULL, why, sizeof why),
                     ERR_NONE);
    assert_int_equal(config_i64(&cfg, age), 6000);
    assert_int_equal(config_source(&cfg, age), CONFIG_FILE);
}

static err stored(enum config_source layer, const char *value)
{
    return config_set_stored(&cfg, layer, "wal.seal_age", value, why, sizeof why);
}

static void expect_age(enum config_source source, i64 ms, i8 kafka_source)
{
    assert_int_equal(config_source(&cfg, CFG_wal_seal_age_ms), source);
    assert_int_equal(config_i64(&cfg, CFG_wal_seal_age_ms), ms);
    assert_int_equal(config_kafka_source(source), kafka_source);
}

static void what_is_stored_for_a_broker_wins_over_the_cluster(void **state)
{
    (void)state;
    const enum config_key age = CFG_wal_seal_age_ms;
    struct config_synonym syn[CONFIG_SYNONYMS_MAX];
    assert_int_equal(set("wal.seal_age = 5s"), ERR_NONE);
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_NONE);
    assert_int_equal(stored(CONFIG_CLUSTER, "6s"), ERR_NONE);
    expect_age(CONFIG_CLUSTER, 6000, 3);
    assert_int_equal(stored(CONFIG_STORED, "7s"), ERR_NONE);
    expect_age(CONFIG_STORED, 7000, 2);
    assert_int_equal(stored(CONFIG_CLUSTER, "8s"), ERR_NONE); /* below: nothing moves */
    expect_age(CONFIG_STORED, 7000, 2);
    assert_int_equal(config_set_live(&cfg, "wal.seal_age", "9s", why, sizeof why), ERR_NONE);
    assert_int_equal(config_synonyms(&cfg, age, syn), 4);
    const i64 values[] = { 9000, 8000, 5000, 30000 };
    const i8 sources[] = { 2, 3, 4, 5 };
    for (u32 i = 0; i < 4; i++) {
        char want[32];
        snprintf(want, sizeof want, "%" PRId64, values[i]);
        assert_string_equal(syn[i].value, want);
        assert_int_equal(syn[i].source, sources[i]);
    }
    assert_int_equal(config_reset_live(&cfg, "wal.seal_age", why, sizeof why), ERR_NONE);
    expect_age(CONFIG_STORED, 7000, 2);
    assert_int_equal(stored(CONFIG_STORED, NULL), ERR_NONE);
    expect_age(CONFIG_CLUSTER, 8000, 3);
    assert_int_equal(config_stored(&cfg, CONFIG_CLUSTER, age), 8000);
    assert_int_equal(reload("wal.seal_age = 4s"), ERR_NONE); /* files are below it */
    expect_told(1, age, CONFIG_RELOAD_KEPT);
    expect_age(CONFIG_CLUSTER, 8000, 3);
    assert_int_equal(stored(CONFIG_CLUSTER, "soon"), ERR_INVALID_CONFIG);
    assert_int_equal(stored(CONFIG_CLUSTER, NULL), ERR_NONE);
    expect_age(CONFIG_FILE, 4000, 4);
    assert_int_equal(config_stored(&cfg, CONFIG_CLUSTER, age), CONFIG_UNSET);
}

static void live_changes(void **state)
{
    (void)state;
    changes = 0;
    config_listen(&cfg, on_change, &changes);
    assert_int_equal(set("wal.seal_age=5s"), 0);
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_NONE);
    assert_int_equal(config_set_live(&cfg, "wal.seal_age", "7s", why, sizeof why), ERR_NONE);
    assert_int_equal(config_i64(&cfg, CFG_wal_seal_age_ms), 7000);
    assert_int_equal(config_source(&cfg, CFG_wal_seal_age_ms), CONFIG_LIVE);
    assert_int_equal(config_reset_live(&cfg, "wal.seal_age", why, sizeof why), ERR_NONE);
    assert_int_equal(config_i64(&cfg, CFG_wal_seal_age_ms), 5000);
    assert_int_equal(config_source(&cfg, CFG_wal_seal_age_ms), CONFIG_FILE);
    assert_int_equal(changes, 2);
    assert_int_equal(config_set_live(&cfg, "wal.size", "2g", why, sizeof why),
                     ERR_POLICY_VIOLATION);
    assert_non_null(strstr(why, "restart"));
    assert_int_equal(config_set_live(&cfg, "message.max.bytes", "1g", why, sizeof why),
                     ERR_INVALID_CONFIG);
    assert_int_equal(config_i64(&cfg, CFG_message_max_bytes), 1048588);
    assert_int_equal(config_check(&cfg, "message.max.bytes", "2m", why, sizeof why), ERR_NONE);
    assert_int_equal(config_i64(&cfg, CFG_message_max_bytes), 1048588);
}

static void passwords_are_never_shown(void **state)
{
    (void)state;
    char buf[CONFIG_VALUE_SIZE];
    assert_string_equal(config_text(&cfg, CFG_s3_secret_key, true, buf, sizeof buf), "");
    assert_int_equal(
        config_set_pair(&cfg, "store.s3.secret_key=top${secret", CONFIG_FILE, why, sizeof why),
        ERR_NONE);
    assert_int_equal(
        config_set_pair(&cfg, "node.rack=${store.s3.secret_key}", CONFIG_FILE, why, sizeof why),
        ERR_NONE);
    assert_int_equal(config_validate(&cfg, why, sizeof why), ERR_NONE);
    assert_string_equal(config_text(&cfg, CFG_s3_secret_key, true, buf, sizeof buf), CONFIG_HIDDEN);
    assert_string_equal(config_str(&cfg, CFG_node_rack), CONFIG_HIDDEN);
    assert_string_equal(config_str(&cfg, CFG_s3_secret_key), "top${secret");
    struct config_synonym syn[CONFIG_SYNONYMS_MAX];
    assert_int_equal(config_synonyms(&cfg, CFG_s3_secret_key, syn), 1);
    assert_string_equal(syn[0].value, CONFIG_HIDDEN);
    assert_int_equal(config_kafka_type(CFG_s3_secret_key), 9);
}

static void values_print_back(void **state)
{
    (void)state;
    char buf[CONFIG_VALUE_SIZE];
    for (u32 k = 0; k < CFG_COUNT; k++) {
        const struct config_def *d = &config_defs[k];
        if (d->type == CONFIG_STRING || d->type == CONFIG_PASSWORD)
            continue;
        i64 v = config_i64(&cfg, (enum config_key)k), again = -99;
        for (int human = 0; human < 2; human++) {
            config_format(d, v, human, buf, sizeof buf);
            assert_int_equal(config_parse(d, buf, &again, why, sizeof why), ERR_NONE);
            assert_int_equal(again, v);
        }
    }
    assert_string_equal(config_text(&cfg, CFG_wal_size, true, buf, sizeof buf), "8g");
    assert_string_equal(config_text(&cfg, CFG_wal_size, false, buf, sizeof buf), "8589934592");
    assert_string_equal(config_text(&cfg, CFG_net_idle_timeout_ms, true, buf, sizeof buf), "10m");
    assert_string_equal(
        config_text(&cfg, CFG_log_cleaner_min_cleanable_ratio, false, buf, sizeof buf), "0.5");
    assert_true(config_is(&cfg, CFG_net_advertise, "node"));
    assert_string_equal(config_str(&cfg, CFG_net_advertise), "node");
    assert_int_equal(set("log.level=warn"), 0);
    assert_string_equal(config_str(&cfg, CFG_log_level), "warn");
    assert_true(config_is(&cfg, CFG_log_cleanup_policy, "delete"));
    assert_false(config_is(&cfg, CFG_log_cleanup_policy, "compact"));
    assert_int_equal(config_kafka_type(CFG_log_retention_ms), 5);
    assert_int_equal(config_kafka_type(CFG_num_partitions), 3);
    assert_string_equal(config_kafka_name(CFG_net_max_request_bytes), "socket.request.max.bytes");
}

static void addresses(void **state)
{
    (void)state;
    char host[32];
    u16 port;
    assert_true(config_split_address("127.0.0.1:9092", host, sizeof host, &port));
    assert_string_equal(host, "127.0.0.1");
    assert_int_equal(port, 9092);
    assert_true(config_split_address("[::1]:1", host, sizeof host, &port));
    assert_string_equal(host, "::1");
    assert_true(config_split_address(":0", host, sizeof host, &port));
    assert_string_equal(host, "");
    static const char *const bad[] = {
        "",     "host", "host:", "::1:9",  "h:65536",
        "h:-1", "h:+1", "h:1x",  "[::1:9", "0123456789012345678901234567890123456789:1"
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_false(config_split_address(bad[i], host, sizeof host, &port));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults_are_valid_and_names_unique, setup, teardown),
        cmocka_unit_test_setup_teardown(units, setup, teardown),
        cmocka_unit_test_setup_teardown(a_part_of_the_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(a_small_disk_makes_the_default_log_smaller, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_log_of_a_size_that_was_asked_for_stays_so, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_disk_is_that_of_the_nearest_folder_there_is, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(bad_values_are_refused_and_change_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(an_unknown_key_names_the_nearest, setup, teardown),
        cmocka_unit_test_setup_teardown(texts_tell_file_and_line, setup, teardown),
        cmocka_unit_test_setup_teardown(the_stronger_source_wins, setup, teardown),
        cmocka_unit_test_setup_teardown(directories_are_read_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(keys_must_agree, setup, teardown),
        cmocka_unit_test_setup_teardown(passwords_are_never_shown, setup, teardown),
        cmocka_unit_test_setup_teardown(live_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reload_takes_what_changed_in_the_files, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reload_tells_what_needs_a_restart_until_it_came, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_reload_is_all_or_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stored_change_wins_over_the_files, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_stored_for_a_broker_wins_over_the_cluster, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(values_print_back, setup, teardown),
        cmocka_unit_test_setup_teardown(addresses, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
