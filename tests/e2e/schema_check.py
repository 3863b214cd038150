#!/usr/bin/env python3
"""Holds Leat's message table against the definitions inside Kafka's jars.

    schema_check.py LEAT-SCHEMA [--doc FILE [--write]]

Every message is compared version by version: the fields in their order, names, types, arrays,
nested structs, which may be null, tags, defaults, flexible or not; then key, versions, stability
and listeners. Messages that only one side has are failures too. --doc compares FILE with the
page generated from the table (--write writes it). Prints each difference and a closing line."""
import json
import re
import subprocess
import sys

import kafka_jar

LAST = 32767
KEYWORDS = set("default switch case register continue break goto int long short char float double"
               " auto const static struct union enum return void while for do if else".split())
NUMBERS = {"INT64_MAX": 2**63 - 1, "INT32_MAX": 2**31 - 1, "INT32_MIN": -2**31}
TYPES = {"bool": "boolean", "int8": "i8", "int16": "i16", "uint16": "u16", "int32": "i32",
         "uint32": "u32", "int64": "i64", "float64": "f64", "uuid": "uuid"}


def snake(name):
    s = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name.replace("KRaft", "Kraft"))
    s = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", s).lower()
    return s + "_" if s in KEYWORDS else s


def versions(text):
    """(first, last) of "3+", "1-4", "2"; None for "none"."""
    if text in (None, "none"):
        return None
    if text.endswith("+"):
        return int(text[:-1]), LAST
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def within(v, span):
    return span is not None and span[0] <= v <= span[1]


# ---- Kafka's side ----

def kafka_default(field, kind):
    value = field.get("default")
    if kind == "optional" or kind == "nullable":
        return "NIL"
    if kind != "value":
        return "NIL" if value == "null" else "EMPTY"
    if field["type"] == "bool":
        return int(str(value).lower() == "true")
    if field["type"] == "uuid" or value in (None, ""):
        return 0
    return int(str(value), 0)


def kafka_field(message, field, v, flexible, common):
    """One field as (name, kind, type or fields of the struct, null?, tag, default)."""
    array = field["type"].startswith("[]")
    base = field["type"][2:] if array else field["type"]
    null = within(v, versions(field.get("nullableVersions")))
    tag = field["tag"] if within(v, versions(field.get("taggedVersions"))) else -1
    inner = None
    if base[0].isupper():
        inner = kafka_fields(message, field.get("fields") or common[base], v, flexible, common)
        # A struct that may be null in some version is a pointer in all.
        pointer = "optional" if field.get("taggedVersions") else "nullable"
        kind = "structs" if array else pointer if field.get("nullableVersions") else "struct"
    elif base in ("string", "bytes", "records"):
        kind = "strings" if array else base
        if flexible and field.get("flexibleVersions") == "none":
            kind = "string16"
    else:
        kind, inner = ("values" if array else "value"), TYPES[base]
    if kind == "string" and field.get("flexibleVersions") == "none":
        kind = "string16"
    return (snake(field["name"]), kind, inner, null, tag, kafka_default(field, kind))


def kafka_fields(message, fields, v, flexible, common):
    rows = [kafka_field(message, f, v, flexible, common) for f in fields
            if within(v, versions(f.get("versions", "0+")))]
    # Tagged fields follow the others, ascending by tag.
    return sorted(rows, key=lambda row: row[4])


def kafka_message(message, v):
    flexible = within(v, versions(message.get("flexibleVersions", "none")))
    common = {s["name"]: s["fields"] for s in message.get("commonStructs", [])}
    return flexible, kafka_fields(message["name"], message["fields"], v, flexible, common)


# ---- Leat's side ----

class Table:
    def __init__(self, program):
        self.structs, self.messages, self.apis = {}, {}, {}
        fields = None
        for line in subprocess.check_output([program], text=True).splitlines():
            row = json.loads(line)
            if "struct" in row:
                fields = []
                self.structs[row["struct"]] = (row["flexible"], fields)
            elif "field" in row:
                fields.append(row)
            elif "message" in row:
                self.messages[row["message"]] = row
            else:
                self.apis[row["api"]] = row

    def default(self, row):
        value = row["default"]
        if row["kind"] == "struct":
            return "EMPTY"
        if row["kind"] != "value":
            return value
        if value in ("true", "false"):
            return int(value == "true")
        return NUMBERS[value] if value in NUMBERS else int(value)

    def fields(self, struct, v):
        rows = []
        for row in self.structs[struct][1]:
            if not row["from"] <= v <= row["to"]:
                continue
            kind, inner = row["kind"], None
            if kind in ("struct", "structs", "nullable", "optional"):
                inner = self.fields(row["type"], v)
            elif kind in ("value", "values"):
                inner = row["type"]
            rows.append((row["field"], kind, inner, v >= row["null"] < LAST, row["tag"],
                         self.default(row)))
        return rows

    def flexible(self, struct, v):
        """Is each struct of the message flexible in v? None if they do not agree."""
        names, todo = {struct}, [struct]
        while todo:
            for row in self.structs[todo.pop()][1]:
                if row["type"] in self.structs and row["type"] not in names:
                    names.add(row["type"])
                    todo.append(row["type"])
        answers = {v >= self.structs[n][0] for n in names}
        return answers.pop() if len(answers) == 1 else None


# ---- comparing ----

def differences(ours, theirs, path):
    """Where two lists of fields differ, as lines."""
    lines = []
    names, expected = [r[0] for r in ours], [r[0] for r in theirs]
    if names != expected:
        return ["%s: fields are %s, Kafka has %s" % (path, names, expected)]
    for a, b in zip(ours, theirs):
        here = path + "." + a[0]
        for what, x, y in zip(("name", "kind", "type", "null", "tag", "default"), a, b):
            if isinstance(x, list) and isinstance(y, list):
                lines += differences(x, y, here)
            elif x != y:
                lines.append("%s: %s is %s, Kafka has %s" % (here, what, x, y))
    return lines


def check_message(table, message):
    name, row = message["name"], table.messages.get(message["name"])
    span = versions(message["validVersions"])
    if span is None:
        return ["%s: Kafka dropped it, the table has it" % name] if row else []
    if row is None:
        return ["%s: missing" % name]
    lines = []
    if (row["min"], row["max"]) != span:
        lines.append("%s: versions %d-%d, Kafka has %d-%d"
                     % ((name, row["min"], row["max"]) + span))
    if row["key"] != message.get("apiKey", -1):
        lines.append("%s: key %d, Kafka has %s" % (name, row["key"], message.get("apiKey")))
    if message["type"] == "request" and \
            row["unstable"] != bool(message.get("latestVersionUnstable")):
        lines.append("%s: unstable is %s" % (name, row["unstable"]))
    for v in range(span[0], span[1] + 1):
        flexible, fields = kafka_message(message, v)
        path = "%s v%d" % (name, v)
        if not table.flexible(row["root"], v) == (v >= row["flexible"]) == flexible:
            lines.append("%s: flexible is wrong, Kafka has %s" % (path, flexible))
        lines += differences(table.fields(row["root"], v), fields, path)
    return lines


def check_api(table, request):
    name, key = request["name"], request["apiKey"]
    span, row = versions(request["validVersions"]), table.apis.get(key)
    if span is None:
        return ["%s: key %d is gone, apis.def has it" % (name, key)] if row else []
    if row is None:
        return ["%s: key %d is not in apis.def" % (name, key)]
    flexible = versions(request.get("flexibleVersions", "none"))
    low = 0 if key == 0 else span[0]  # Produce is advertised from 0; see apis.def
    high = span[1] - (1 if request.get("latestVersionUnstable") else 0)
    expected = {"api": key, "name": snake(name[:-len("Request")]), "min": low, "max": high,
                "flexible": flexible[0] if flexible else LAST,
                "broker": "broker" in request["listeners"]}
    return [] if row == expected else ["apis.def: %s, Kafka has %s" % (row, expected)]


def page(table):
    """docs/protocol.md."""
    out = ["# Messages", "",
           "Generated from the message table (`make docs-protocol`); a test keeps it in step with",
           "the table, and the table with Apache Kafka %s. *versions* are those that may be"
           % kafka_jar.VERSION,
           "advertised, *flexible from* is the first version with tagged fields, *listener* is"
           " where", "Kafka answers the API (a controller's APIs are never served to clients).", "",
           "| key | API | versions | flexible from | listener |", "|---|---|---|---|---|"]
    names = {(m["key"], m["message"][:-7]) for m in table.messages.values()
             if m["message"].endswith("Request")}
    for key, name in sorted(names):
        api = table.apis[key]
        out.append("| %d | %s | %d-%d | %s | %s |" % (
            key, name, api["min"], api["max"],
            "-" if api["flexible"] == LAST else api["flexible"],
            "broker" if api["broker"] else "controller"))
    out += ["", "Produce is advertised from 0 for the sake of old clients, but its messages begin "
            "at 3.", "InitProducerId 6 exists and is not advertised.", "",
            "## Other messages", "", "| message | versions | flexible from |", "|---|---|---|"]
    for m in table.messages.values():
        if not m["message"].endswith(("Request", "Response")):
            out.append("| %s | %d-%d | %s |" % (m["message"], m["min"], m["max"],
                                               "-" if m["flexible"] == LAST else m["flexible"]))
    return "\n".join(out) + "\n"


def check_doc(table, path, write):
    text = page(table)
    if write:
        with open(path, "w") as f:
            f.write(text)
    try:
        with open(path) as f:
            same = f.read() == text
    except FileNotFoundError:
        same = False
    return [] if same else ["%s is out of date: make docs-protocol" % path]


def main():
    table = Table(sys.argv[1])
    clients = kafka_jar.definitions(kafka_jar.fetch(kafka_jar.CLIENTS))
    coordinator = kafka_jar.definitions(kafka_jar.fetch(kafka_jar.COORDINATOR))
    everything = {**clients, **coordinator}
    passed = failed = 0
    results = []
    for name, message in sorted(everything.items()):
        lines = check_message(table, message)
        if message["type"] == "request":
            lines += check_api(table, message)
        results.append(lines)
    results += [["%s: Kafka has no such message" % name]
                for name in table.messages if name not in everything]
    if "--doc" in sys.argv:
        results.append(check_doc(table, sys.argv[sys.argv.index("--doc") + 1],
                                 "--write" in sys.argv))
    for lines in results:
        for line in lines[:5]:
            print(line)
        passed += not lines
        failed += bool(lines)
    print("schema: %d passed, %d failed" % (passed, failed))
    sys.exit(0 if failed == 0 and passed > 200 else 1)


main()
