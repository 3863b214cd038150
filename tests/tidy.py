#!/usr/bin/env python3
"""The style guide as a test: lengths, layers, banned words, self-contained headers, essays, dead files.

Prints one line for each breach (file:line: what) and ends with status 1 when there is any.
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LINE_MAX, FUNCTION_MAX, FILE_MAX, ESSAY_FROM = 100, 70, 1000, 200

# Layer of each folder, and what it may include: itself and the layers below. net and storage are
# siblings of which storage is built upon net's codecs only through `net` headers it names here.
BELOW = {
    "base": {"base"},
    "shard": {"base", "shard"},
    "net": {"base", "shard", "net"},
    "storage": {"base", "shard", "storage"},
    "broker": {"base", "shard", "net", "storage", "broker"},
    "main": {"base", "shard", "net", "storage", "broker", "main"},
}
FOLDERS = [("core/base/", "base"), ("core/shard/", "shard"), ("net/", "net"), ("storage/", "storage"),
           ("core/broker/", "broker"), ("core/group/", "broker"), ("core/node/", "broker")]
# Contracts in include/, by layer. A new header is added here by whoever adds it.
HEADERS = {
    "base": "base bytes check err list mem hmap log outage clock rng config topic_config metrics hash crc32c "
            "batch compress version varint json limits plant",
    "shard": "io timer op shard mailbox bg",
    "net": "conn codec wire net protocol listener",
    "storage": "storage store flow store_job clone meta wal segment reader uploader bundle cache backup recovery",
    "broker": "broker named node admin node_admin topic_clone partition coordinator cluster group",
}
HEADER_LAYER = {f"{h}.h": layer for layer, names in HEADERS.items() for h in names.split()}
ALLOWED_UPWARD = set()  # (file, header): none

BANNED = [
    (r"\b(malloc|calloc|realloc|free|strdup|strndup)\s*\(", "memory comes from mem.h", {"core/base/mem.c"}),
    (r"\b(strcpy|strcat|sprintf|vsprintf|gets|strncpy|atoi|atol|atoll)\s*\(", "unbounded or silent on errors",
     set()),
    (r"\b(localtime|gmtime|ctime|asctime|rand|srand|random|time)\s*\(", "clock.h and rng.h, or the _r form",
     set()),
    (r"\b(TODO|FIXME|XXX|HACK)\b(?!\(#\d+\))", "needs an issue: TODO(#n)", set()),
]
SHIPPED = ("core/", "net/", "storage/", "include/")
# Programs that stand alone may time and allocate as they need; they never run inside a node.
ALONE = ("tests/", "perf/")

breaches = []


def breach(path, line, what):
    breaches.append(f"{path}:{line}: {what}")


def tracked():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True,
                            capture_output=True, check=True)
    return sorted(p for p in listed.stdout.split("\n") if p and os.path.isfile(os.path.join(ROOT, p)))


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def without_comments_and_strings(text):
    """Same line structure, with comments and the insides of literals blanked."""
    pattern = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)

    def blank(m):
        s = m.group(0)
        if s[0] in "\"'":
            return s[0] + s[0]
        return re.sub(r"[^\n]", " ", s)
    return pattern.sub(blank, text)


def check_lines(path, text):
    for n, line in enumerate(text.split("\n"), 1):
        if len(line) > LINE_MAX and not path.endswith(".def"):
            breach(path, n, f"{len(line)} columns, at most {LINE_MAX}")
        if line != line.rstrip():
            breach(path, n, "blanks at the end of the line")
        if "\t" in line:
            breach(path, n, "a tab")


def check_functions(path, code):
    """Functions begin with '{' alone in column 0 and end with '}' in column 0."""
    start = None
    for n, line in enumerate(code.split("\n"), 1):
        if line == "{":
            start = n
        elif line.startswith("}") and start:
            if n - start + 1 > FUNCTION_MAX:
                breach(path, start, f"function of {n - start + 1} lines, at most {FUNCTION_MAX}")
            start = None


def check_banned(path, text, code):
    for pattern, why, except_in in BANNED:
        if path in except_in or (path.startswith(ALONE) and "issue" not in why):
            continue
        for n, line in enumerate((text if "issue" in why else code).split("\n"), 1):
            m = re.search(pattern, line)
            if m:
                breach(path, n, f"{m.group(0).strip()}: {why}")


def layer_of(path):
    if path.startswith("include/"):
        return HEADER_LAYER.get(os.path.basename(path))
    for folder, layer in FOLDERS:
        if path.startswith(folder):
            return layer
    return "main"


def check_layers(path, text):
    own = layer_of(path)
    if own is None:
        breach(path, 1, "in no layer: add it to HEADERS in tests/tidy.py")
        return
    if path == "core/main.c" or path.startswith("core/leatctl") or path.startswith(ALONE):
        return
    for n, line in enumerate(text.split("\n"), 1):
        m = re.match(r'\s*#include "([^"]+)"', line)
        if not m or not m.group(1).endswith(".h"):
            continue
        header = os.path.basename(m.group(1))
        beside = os.path.join(os.path.dirname(path), m.group(1))
        if os.path.isfile(os.path.join(ROOT, beside)) and not path.startswith("include/"):
            continue
        layer = HEADER_LAYER.get(header) or next(
            (l for folder, l in FOLDERS if os.path.isfile(os.path.join(ROOT, folder, m.group(1)))), None)
        if layer is None:
            breach(path, n, f'"{header}" is in no layer: add it to HEADERS in tests/tidy.py')
        elif layer not in BELOW[own] and (path, header) not in ALLOWED_UPWARD:
            breach(path, n, f'layer {own} includes "{header}" of layer {layer}')


def check_essay(path, text):
    lines = text.count("\n")
    if lines > FILE_MAX:
        breach(path, 1, f"{lines} lines, at most {FILE_MAX}")
    if (path.startswith("include/") or lines > ESSAY_FROM) and not text.startswith("/*"):
        breach(path, 1, "begins without the comment that explains it")


def check_headers(headers):
    """Each contract compiles alone."""
    for path in headers:
        done = subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-Iinclude", "-Inet", "-Inet/messages",
                               "-Wall", "-Wextra", "-fsyntax-only", "-x", "c", path], cwd=ROOT, text=True,
                              capture_output=True)
        errors = [l for l in done.stderr.split("\n") if "error" in l]
        if errors:
            breach(path, 1, f"is not self-contained: {errors[0]}")


def check_dead(paths, texts):
    """Private headers and .def files that nobody includes."""
    includes = set()
    for text in texts.values():
        includes.update(os.path.basename(m) for m in re.findall(r'#\s*include [<"]([^">]+)[">]', text))
    for path in paths:
        if path.endswith((".h", ".def")) and os.path.basename(path) not in includes:
            if "CODEC_INCLUDE" not in texts.get(path, "") and not path.startswith("net/messages/"):
                breach(path, 1, "nobody includes it")


def check_keys(texts):
    """A key that nobody reads misleads whoever sets it, unless it says so."""
    table = texts.get("include/config.def", "")
    topics = texts.get("include/topic_config.def", "")
    readers = "".join(t for p, t in texts.items()
                      if p.startswith(SHIPPED) and not p.startswith("core/base/config"))
    for m in re.finditer(r"^KEY(?:_CHOICE)?\((\w+),(?:.*\n)+?(?=KEY|SECTION|#|\n|/)", table, re.M):
        unread = not re.search(rf"\bCFG_{m.group(1)}\b", readers) and not re.search(rf"\b{m.group(1)},\s*(true|false)", topics)
        if unread != ('"Without effect: ' in m.group()):
            n = table.count("\n", 0, m.start()) + 1
            breach("include/config.def", n, f"nobody reads CFG_{m.group(1)}" if unread else "it has an effect")


def main():
    paths = [p for p in tracked() if p.endswith((".c", ".h", ".def"))]
    texts = {p: read(p) for p in paths}
    for path, text in texts.items():
        code = without_comments_and_strings(text)
        check_lines(path, text)
        if path.endswith(".def"):
            continue
        check_functions(path, code)
        check_banned(path, text, code)
        check_essay(path, text)
        if path.startswith(SHIPPED):
            check_layers(path, text)
    check_headers([p for p in paths if p.startswith("include/") and p.endswith(".h")])
    check_dead(paths, texts)
    check_keys(texts)
    for line in breaches:
        print(line)
    bad = {line.split(":", 1)[0] for line in breaches}
    print(f"tidy: {len(breaches)} breaches")
    print(f"tidy: {len(paths) - len(bad & set(paths))} passed, {len(breaches)} failed")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
