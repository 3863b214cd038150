"""Kafka's wire format, driven by the message definitions inside the kafka-clients jar.

An independent reader and writer of every message: it shares nothing with the broker under test, so
that a mistake in the broker's own schema cannot hide. Requests are dicts with the field names of the
definitions; fields left out take their defaults. Responses decode to dicts, to the last byte.
"""
import glob
import io
import json
import os
import re
import socket
import struct
import zipfile
import zlib

LAST = 32767


class Malformed(Exception):
    """The bytes are not a message of that key and version."""


def versions(text):
    if text is None or text == "none":
        return (1, 0)
    if text.endswith("+"):
        return (int(text[:-1]), LAST)
    low, _, high = text.partition("-")
    return (int(low), int(high or low))


def within(pair, version):
    return pair[0] <= version <= pair[1]


class Field:
    def __init__(self, spec, structs, flexible):
        self.name = spec["name"]
        self.versions = versions(spec.get("versions", "0+"))
        self.nullable = versions(spec.get("nullableVersions"))
        self.tag = spec.get("tag")
        self.tagged = versions(spec.get("taggedVersions"))
        # A field may opt out of compact encoding: the client id of a request header does.
        self.flexible = versions(spec["flexibleVersions"]) if "flexibleVersions" in spec else flexible
        self.type = spec["type"]
        self.element = self.type[2:] if self.type.startswith("[]") else None
        self.default = spec.get("default")
        if "fields" in spec:
            structs[self.element or self.type] = [Field(f, structs, flexible) for f in spec.get("fields", [])]

    def default_value(self):
        if self.element:
            return None if self.default == "null" else []
        text = self.default
        if text == "null":
            return None
        if self.type in ("string",):
            return text or ""
        if self.type == "bool":
            return text in ("true", True)
        if self.type == "float64":
            return float(text or 0)
        if self.type in ("bytes", "records"):
            return b""
        if self.type == "uuid":
            return bytes(16)
        if self.type in FIXED:
            return int(str(text), 0) if text not in (None, "") else 0
        return {}


FIXED = {"int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q",
         "float64": ">d", "bool": ">?"}


class Message:
    def __init__(self, spec):
        self.name = spec["name"]
        self.key = spec.get("apiKey")
        self.valid = versions(spec["validVersions"])
        self.flexible = versions(spec.get("flexibleVersions"))
        self.structs = {}
        for common in spec.get("commonStructs", []):
            self.structs[common["name"]] = [Field(f, self.structs, self.flexible) for f in common["fields"]]
        self.fields = [Field(f, self.structs, self.flexible) for f in spec.get("fields", [])]

    # ---- writing ----
    def encode(self, version, values):
        out = io.BytesIO()
        self._write_struct(out, self.fields, version, values)
        return out.getvalue()

    def _write_struct(self, out, fields, version, values):
        tags = []
        for field in fields:
            if not within(field.versions, version):
                continue
            value = values.get(field.name, field.default_value())
            if within(field.tagged, version):
                if value != field.default_value():
                    tags.append((field, value))
                continue
            self._write(out, field, version, value)
        if within(self.flexible, version):
            put_uvarint(out, len(tags))
            for field, value in sorted(tags, key=lambda t: t[0].tag):
                body = io.BytesIO()
                self._write(body, field, version, value)
                put_uvarint(out, field.tag)
                put_uvarint(out, len(body.getvalue()))
                out.write(body.getvalue())

    def _write(self, out, field, version, value):
        compact = within(field.flexible, version)
        if field.element:
            if value is None:
                out.write(b"\0" if compact else struct.pack(">i", -1))
                return
            put_uvarint(out, len(value) + 1) if compact else out.write(struct.pack(">i", len(value)))
            for item in value:
                self._write_one(out, field, field.element, version, item, compact)
        else:
            self._write_one(out, field, field.type, version, value, compact)

    def _write_one(self, out, field, kind, version, value, compact):
        if kind in FIXED:
            out.write(struct.pack(FIXED[kind], value))
        elif kind == "uuid":
            out.write(value)
        elif kind == "string":
            data = None if value is None else value.encode()
            if compact:
                put_uvarint(out, 0 if data is None else len(data) + 1)
            else:
                out.write(struct.pack(">h", -1 if data is None else len(data)))
            out.write(data or b"")
        elif kind in ("bytes", "records"):
            if compact:
                put_uvarint(out, 0 if value is None else len(value) + 1)
            else:
                out.write(struct.pack(">i", -1 if value is None else len(value)))
            out.write(value or b"")
        else:
            if within(field.nullable, version) and not field.element:
                out.write(b"\xff" if value is None else b"\x01")
                if value is None:
                    return
            self._write_struct(out, self.structs[kind], version, value)

    # ---- reading ----
    def decode(self, version, data):
        reader = Reader(data)
        values = self._read_struct(reader, self.fields, version)
        if reader.at != len(data):
            raise Malformed(f"{self.name} v{version}: {len(data) - reader.at} bytes left over")
        return values

    def _read_struct(self, reader, fields, version):
        values, known = {}, {}
        for field in fields:
            if not within(field.versions, version):
                continue
            if within(field.tagged, version):
                values[field.name] = field.default_value()
                known[field.tag] = field
                continue
            values[field.name] = self._read(reader, field, version)
        if within(self.flexible, version):
            last = -1
            for _ in range(reader.uvarint()):
                tag, size = reader.uvarint(), reader.uvarint()
                if tag <= last:
                    raise Malformed(f"{self.name} v{version}: tag {tag} after {last}")
                last = tag
                end = reader.at + size
                if tag in known:
                    values[known[tag].name] = self._read(reader, known[tag], version)
                    if reader.at != end:
                        raise Malformed(f"{self.name} v{version}: tag {tag} has a wrong size")
                else:
                    values.setdefault("_tags", {})[tag] = reader.take(size)
        return values

    def _read(self, reader, field, version):
        compact = within(field.flexible, version)
        if not field.element:
            return self._read_one(reader, field, field.type, version, compact)
        count = reader.uvarint() - 1 if compact else reader.fixed(">i")
        if count < 0:
            if not within(field.nullable, version):
                raise Malformed(f"{self.name} v{version}: {field.name} is null")
            return None
        return [self._read_one(reader, field, field.element, version, compact) for _ in range(count)]

    def _read_one(self, reader, field, kind, version, compact):
        if kind in FIXED:
            return reader.fixed(FIXED[kind])
        if kind == "uuid":
            return reader.take(16)
        if kind in ("string", "bytes", "records"):
            if compact:
                size = reader.uvarint() - 1
            else:
                size = reader.fixed(">h" if kind == "string" else ">i")
            if size < 0:
                if not field.element and not within(field.nullable, version):
                    raise Malformed(f"{self.name} v{version}: {field.name} is null")
                return None
            data = reader.take(size)
            return data.decode() if kind == "string" else data
        if within(field.nullable, version) and not field.element:
            if reader.fixed(">b") < 0:
                return None
        return self._read_struct(reader, self.structs[kind], version)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        if size < 0 or self.at + size > len(self.data):
            raise Malformed(f"needs {size} bytes at {self.at} of {len(self.data)}")
        self.at += size
        return self.data[self.at - size:self.at]

    def fixed(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def uvarint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def varint(self):
        raw = self.uvarint()
        return (raw >> 1) ^ -(raw & 1)


def put_uvarint(out, value):
    while value > 127:
        out.write(bytes([value & 127 | 128]))
        value >>= 7
    out.write(bytes([value]))


def put_varint(out, value):
    put_uvarint(out, (value << 1) ^ (value >> 63) if value < 0 else value << 1)


# ---- the definitions ----
def find_jar():
    cache = os.environ.get("LEAT_CACHE", os.path.expanduser("~/.cache/leat"))
    for pattern in ("kafka-4.4.0/broker/kafka-clients-4.4.0.jar", "kafka-clients-4.4.0.jar"):
        for path in glob.glob(os.path.join(cache, pattern)):
            return path
    raise SystemExit(f"kafka-clients-4.4.0.jar is not in {cache}; run tests/e2e/peers/kafka.sh install")


class Schema:
    def __init__(self, jar=None):
        self.requests, self.responses = {}, {}
        self.header = None
        with zipfile.ZipFile(jar or find_jar()) as archive:
            for name in archive.namelist():
                if not re.match(r"common/message/.*(Request|Response|RequestHeader)\.json$", name):
                    continue
                text = archive.read(name).decode()
                text = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("//"))
                spec = json.loads(text)
                if spec["type"] == "request":
                    self.requests[spec["apiKey"]] = Message(spec)
                elif spec["type"] == "response":
                    self.responses[spec["apiKey"]] = Message(spec)

    def name(self, key):
        return self.requests[key].name.replace("Request", "") if key in self.requests else f"key {key}"

    def flexible(self, key, version):
        return within(self.requests[key].flexible, version)

    def request(self, key, version, values, correlation=1, client="raw"):
        """A whole request without its size prefix."""
        head = struct.pack(">hhi", key, version, correlation)
        head += struct.pack(">h", -1) if client is None else struct.pack(">h", len(client)) + client.encode()
        if self.flexible(key, version):
            head += b"\0"
        return head + self.requests[key].encode(version, values)

    def response(self, key, version, data):
        """(correlation id, values) of a response without its size prefix."""
        correlation = struct.unpack_from(">i", data)[0]
        body = data[4:]
        if self.flexible(key, version) and key != 18:  # ApiVersions answers with header v0, always
            reader = Reader(body)
            for _ in range(reader.uvarint()):
                reader.uvarint()
                reader.take(reader.uvarint())
            body = body[reader.at:]
        return correlation, self.responses[key].decode(version, body)


class Connection:
    """One blocking connection. A closed connection reads as None."""

    def __init__(self, address, schema, timeout=15):
        self.schema = schema
        self.socket = socket.create_connection(address, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send_raw(self, data):
        self.socket.sendall(data)

    def send_frame(self, payload):
        self.send_raw(struct.pack(">i", len(payload)) + payload)

    def send(self, key, version, values):
        self.correlation += 1
        self.send_frame(self.schema.request(key, version, values, self.correlation))
        return self.correlation

    def read_exact(self, size):
        data = bytearray()
        while len(data) < size:
            try:
                piece = self.socket.recv(size - len(data))
            except (ConnectionResetError, BrokenPipeError):
                return None
            if not piece:
                return None
            data += piece
        return bytes(data)

    def read_frame(self):
        head = self.read_exact(4)
        if head is None:
            return None
        size = struct.unpack(">i", head)[0]
        if not 0 <= size <= 200 << 20:
            raise Malformed(f"response of {size} bytes")
        return self.read_exact(size)

    def receive(self, key, version):
        frame = self.read_frame()
        if frame is None:
            return None
        return self.schema.response(key, version, frame)

    def call(self, key, version, values):
        """Sends a request and returns the values of its answer."""
        wanted = self.send(key, version, values)
        answer = self.receive(key, version)
        if answer is None:
            raise ConnectionError(f"{self.schema.name(key)} v{version}: connection closed without an answer")
        correlation, got = answer
        if correlation != wanted:
            raise Malformed(f"{self.schema.name(key)} v{version}: correlation {correlation}, sent {wanted}")
        return got


# ---- record batches ----
def crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC32C = crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def record(index, key, value, delta=0, headers=()):
    body = io.BytesIO()
    body.write(b"\0")
    put_varint(body, delta)
    put_varint(body, index)
    for data in (key, value):
        put_varint(body, -1 if data is None else len(data))
        body.write(data or b"")
    put_varint(body, len(headers))
    for name, data in headers:
        put_varint(body, len(name))
        body.write(name.encode())
        put_varint(body, -1 if data is None else len(data))
        body.write(data or b"")
    out = io.BytesIO()
    put_varint(out, len(body.getvalue()))
    return out.getvalue() + body.getvalue()


def batch(values, timestamp=1700000000000, producer=-1, epoch=-1, sequence=-1, gzip=False, magic=2,
          crc_xor=0, count=None, attributes=0):
    """A record batch v2 of (key, value) pairs or plain values."""
    pairs = [v if isinstance(v, tuple) else (None, v) for v in values]
    records = b"".join(record(i, k, v) for i, (k, v) in enumerate(pairs))
    if gzip:
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        records = packer.compress(records) + packer.flush()
        attributes |= 1
    number = len(pairs) if count is None else count
    tail = struct.pack(">hiqqqhii", attributes, number - 1, timestamp, timestamp, producer, epoch, sequence,
                       number) + records
    head = struct.pack(">ibI", 0, magic, crc32c(tail) ^ crc_xor)
    return struct.pack(">qi", 0, len(head) + len(tail)) + head + tail


def batches(data):
    """[(base offset, last offset, record count)] of a fetched record set; a partial last one is left out."""
    found, at = [], 0
    while at + 61 <= len(data):
        base, size = struct.unpack_from(">qi", data, at)
        if at + 12 + size > len(data):
            break
        magic, crc = struct.unpack_from(">bI", data, at + 16)
        if magic != 2 or crc32c(data[at + 21:at + 12 + size]) != crc:
            raise Malformed(f"batch at offset {base}: magic {magic} or a wrong checksum")
        last, = struct.unpack_from(">i", data, at + 23)
        count, = struct.unpack_from(">i", data, at + 57)
        found.append((base, base + last, count))
        at += 12 + size
    return found
