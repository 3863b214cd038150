/* The clean store: what lies in the store is what the metadata names, to the byte. Asked at the
 * end, when nothing changes any more; then it must come true after the grace time. */
#include <stdio.h>
#include <string.h>

#include "../../storage/bundle_int.h"
#include "load.h"

/* The object of a registration; false: the key is another kind's. */
static bool registered_object(struct bytes key, struct bytes value, char *name, u64 *bytes)
{
    u64 id;
    struct bundle_reg reg;
    if (key.len < 2 || key.data[1] != '/' || (key.data[0] != 'b' && key.data[0] != 'r'))
        return false;
    if (!meta_key_bundle_parse(key, &id) || bundle_reg_decode(value, &reg) != ERR_NONE)
        sim_fail("metadata: %.*s is no registration", (int)key.len, (const char *)key.data);
    bundle_name(name, id, reg.epoch);
    *bytes = reg.object_bytes;
    return true;
}

static const char *object_check(const char *name, u64 want)
{
    const char *is;
    struct bytes data;
    for (u32 i = 0; store_object_at(i, &is, &data); i++)
        if (strcmp(is, name) == 0)
            return data.len == want ? NULL : "has another length";
    return "is not there";
}

/* The metadata's own backup (m/) is not registered anywhere; backup.c keeps it small. */
static u32 data_objects(void)
{
    const char *name;
    struct bytes data;
    u32 count = 0;
    for (u32 i = 0; store_object_at(i, &name, &data); i++)
        count += strncmp(name, "m/", 2) != 0;
    return count;
}

bool store_is_clean(char *why, size_t why_size)
{
    struct bytes key, value;
    char name[BUNDLE_NAME_SIZE];
    u64 bytes;
    u32 named = 0;
    for (u32 i = 0; meta_pair_at(i, &key, &value); i++) {
        if (!registered_object(key, value, name, &bytes))
            continue;
        const char *wrong = object_check(name, bytes);
        if (wrong)
            sim_fail("store: the registered object %s %s", name, wrong);
        named++;
    }
    u32 there = data_objects();
    snprintf(why, why_size, "%u objects, %u of them registered", there, named);
    CHECK(named <= there);
    return named == there;
}
