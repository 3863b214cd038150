/* Between leatctl's files. A subcommand is a row of the table in leatctl.c and a function in a
 * leatctl_X.c of its own; it says what went wrong on stderr and in `status`, and returns.
 */
#ifndef LEATCTL_INT_H
#define LEATCTL_INT_H

#include <curl/curl.h>
#include <jansson.h>

#include "base.h"
#include "metrics.h"

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2, EXIT_UNREACHABLE = 3 };

struct ctl {
    const char *addr;
    bool all, write, reset, values_only, describe, ignore_unknown;
    char **words; /* what is no option */
    int count;
    CURL *curl;
    int status; /* of the process */
};

struct ctl_command {
    const char *name;
    const char *words; /* for the usage: "[NAME=PRICE]..." */
    const char *help;
    bool takes_words; /* all that follow are its own, those with dashes too */
    void (*run)(struct ctl *c, int count, char **words);
};

/* A whole answer; the text is bounded by metric_text. Free it with metric_text_free. */
struct ctl_reply {
    long status; /* HTTP; 0 when there was none */
    struct metric_text body;
};
/* One request. `value` is the body of a PUT, else NULL. False (with a message) when no node
 * answered. */
bool ctl_ask(struct ctl *c, const char *method, const char *path, const char *value,
             struct ctl_reply *reply) MUST_USE;
/* The body as JSON; NULL (with a message) when it is none. Frees the body. The caller drops the
 * reference. */
json_t *ctl_reply_json(struct ctl *c, struct ctl_reply *reply) MUST_USE;

/* NULL, with a message, when there is no answer or it is a refusal. */
json_t *ctl_ask_json(struct ctl *c, const char *method, const char *path, const char *body);
void leatctl_topic(struct ctl *c, int count, char **words); /* leatctl_topic.c */
void leatctl_store(struct ctl *c, int count, char **words); /* leatctl_store.c */

#endif
