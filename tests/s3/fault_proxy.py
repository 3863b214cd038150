"""An HTTP proxy before an S3 server that misbehaves in a chosen way, in this process.

    proxy = FaultProxy(port, upstream_port, mode="slowdown", every=4)

Every `every`-th request that the mode applies to goes wrong; the first one never does. Modes:
  none          all goes through
  slow          the answer comes half a second late
  slow_put      a put reaches the store two seconds late
  slow_put_done a put is done, and answered two seconds late
  slow_put_throttled  as slow_put, and one of the first gets 503 SlowDown
  stall         no answer comes
  error500      500 InternalError, nothing is done
  slowdown      503 SlowDown, nothing is done
  lost          it is done, and the connection is reset instead of an answer
  reset         the connection is reset in the middle of the answer's body
  short         the answer says a length and ends before it
  wrong_length  a well-formed answer with fewer bytes than were asked for
  corrupt_up    a byte of the request's body is another one when it arrives
  reset_part    the connection is reset in the middle of a part of a large object
  complete500   500 InternalError to the completion of an upload in parts, nothing is done
  complete_bad  the same, as 200 after blanks, nothing is done
  complete_lie  the same, and it is done
  abandon       uploads in parts of names with "abandon" can't be completed
  forsake       nor be aborted, and the store says that they were; a second abort gets through
  whole_list    max-keys and start-after of listings are ignored (the server must not check signatures)
  empty_list    a listing is empty, and nothing follows it
  stale_list    a listing is answered with the first one of that query again
  skew          the store's clock is an hour ahead of ours, and it minds
  skew_mute     the same, and its answers do not tell the time
  region        the bucket is in eu-west-1, and the store minds
  denied        403 AccessDenied for whatever changes something
  denied_list   403 AccessDenied for lists

Beside that, `late` (a callable that gives seconds) makes each upload take so much longer, and `rate` (bytes a
second, all together) is what uploads get; `put_seconds` is how long each took.
With `page`, a listing is answered with so many names at a time (the server must not check signatures).
With `unconditional`, the store never sees If-None-Match (nor would a signature with it hold: for Moto, which checks none).
With `keys` (a callable that gives a set), requests signed with other access keys get ExpiredToken.
"""
import calendar
import email.utils
import re
import socket
import socketserver
import ssl
import struct
import threading
import time

BODY_MODES = ("reset", "short", "wrong_length")
COMPLETE_MODES = ("complete500", "complete_bad", "complete_lie")
LIST_MODES = ("empty_list", "stale_list")
EMPTY_LIST = (b'<?xml version="1.0"?><ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated>'
              b"</ListBucketResult>")
PUT_MODES = ("slow_put", "slow_put_done", "slow_put_throttled")
ABANDON_MODES = {"abandon": ("POST",), "forsake": ("POST", "DELETE")}
SLOW_PUT_SECONDS = 2
THROTTLED_PUT = 10  # behind the probe of the start, before anybody knows what is slow


SELECTIVE = ("whole_list", "skew", "skew_mute", "region", "denied", "denied_list")


def error(status, code, headers="", more=""):
    body = (f"<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>by the fault proxy</Message>{more}"
            "</Error>").encode()
    return (f"HTTP/1.1 {status} Error\r\nContent-Type: application/xml\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


class Message:
    """One request or answer, read whole."""

    def __init__(self, head, body):
        self.head, self.body = head, body
        lines = head.decode("latin-1").split("\r\n")
        self.first = lines[0]
        self.headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}


def receive(stream, no_body=False):
    message = receive_head(stream)
    return message and receive_body(stream, message, no_body)


def receive_head(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline(65536)
        if not line:
            return None
        head += line
    message = Message(head[:-4], b"")
    return receive_head(stream) if message.first.startswith("HTTP/1.1 100") else message


def receive_body(stream, message, no_body=False):
    if no_body:
        return message
    if message.headers.get("transfer-encoding", "").lower() == "chunked":
        while True:
            size = int(stream.readline().split(b";")[0], 16)
            chunk = stream.read(size)
            stream.readline()
            message.body += chunk
            if size == 0:
                break
        message.head = re.sub(rb"(?i)transfer-encoding: *chunked", b"Content-Length: %d" % len(message.body),
                              message.head)
        return message
    length = int(message.headers.get("content-length", 0))
    message.body = stream.read(length) if length else b""
    return message


class Handler(socketserver.BaseRequestHandler):
    def reset(self):
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()
        return False

    def upstream_ask(self, request):
        for fresh in (False, True):
            if fresh or self.upstream is None:
                self.upstream = socket.create_connection(("127.0.0.1", self.server.proxy.upstream_port), timeout=60)
                self.upstream_stream = self.upstream.makefile("rb")
            try:
                self.upstream.sendall(request.head + b"\r\n\r\n" + request.body)
                answer = receive(self.upstream_stream, request.first.startswith("HEAD"))
                if answer is not None:
                    if answer.headers.get("connection", "").lower() == "close" or answer.first.startswith("HTTP/1.0"):
                        self.upstream = None
                    return answer
            except OSError:
                pass
            self.upstream = None
        return None

    def handle(self):
        proxy, self.upstream = self.server.proxy, None
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = self.request.makefile("rb")
        try:
            while True:
                request = receive_head(stream)
                if request is None:
                    return
                fault = proxy.choose(request)
                if fault == "reset_part":
                    stream.read(int(request.headers["content-length"]) // 2)
                    self.reset()
                    return
                if not self.serve(proxy, receive_body(stream, request), fault):
                    return
        except (OSError, ValueError):
            return

    def serve(self, proxy, request, fault):
        if proxy.unconditional:
            request.head = re.sub(rb"(?i)\r\nif-none-match:[^\r]*", b"", request.head)
        if proxy.page:
            request.head = request.head.replace(b"list-type=2", b"list-type=2&max-keys=%d" % proxy.page, 1)
        if proxy.mode == "whole_list":
            head = re.sub(rb"(max-keys=\d+&|&start-after=[^& ]*)", b"", request.head.split(b"\r\n", 1)[0])
            proxy.faults += head != request.head.split(b"\r\n", 1)[0]
            request.head = head + b"\r\n" + request.head.split(b"\r\n", 1)[1]
        refused = proxy.refuse(request)
        if refused:
            self.request.sendall(refused)
            return True
        if fault == "forsaken":
            self.request.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            return True
        if fault in ("error500", "complete500", *ABANDON_MODES):
            self.request.sendall(error(500, "InternalError"))
            return True
        if fault == "slowdown":
            self.request.sendall(error(503, "SlowDown"))
            return True
        if fault == "complete_bad":
            self.request.sendall(self.late_error())
            return True
        if fault == "stall":
            time.sleep(3)
            return self.reset()
        if fault == "corrupt_up":
            at = len(request.body) // 2
            request.body = request.body[:at] + bytes([request.body[at] ^ 1]) + request.body[at + 1:]
        if fault == "slow_put":
            time.sleep(SLOW_PUT_SECONDS)
        began, upload = time.monotonic(), request.first.startswith("PUT") and request.body
        if upload:
            proxy.delay(len(request.body))
        answer = self.upstream_ask(request)
        if upload:
            proxy.put_seconds.append(time.monotonic() - began)
        if answer is None:
            self.request.sendall(error(502, "BadGateway"))
            return True
        return self.give(proxy, request, answer, fault)

    @staticmethod
    def late_error():
        """As stores do that keep a connection alive while they put parts together."""
        told = error("200", "InternalError").split(b"\r\n\r\n", 1)[1]
        body = b"  \n \n" + told
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def give(self, proxy, request, answer, fault):
        if fault == "slow":
            time.sleep(0.5)
        if fault == "slow_put_done":
            time.sleep(SLOW_PUT_SECONDS)
        if fault == "complete_lie":
            self.request.sendall(self.late_error())
            return True
        if fault == "lost":
            return self.reset()
        head, body = answer.head, answer.body
        if fault in LIST_MODES:
            body = proxy.listing(request, answer) if fault == "stale_list" else EMPTY_LIST
            head = re.sub(rb"(?i)content-length: *\d+", b"Content-Length: %d" % len(body), head)
        if fault in BODY_MODES and len(body) > 1:
            body = body[:len(body) // 2]
            if fault == "wrong_length":
                head = re.sub(rb"(?i)content-length: *\d+", b"Content-Length: %d" % len(body), head)
        self.request.sendall(head + b"\r\n\r\n" + body)
        if fault == "reset":
            return self.reset()
        return fault != "short" and answer.headers.get("connection", "").lower() != "close"


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass


class FaultProxy:
    def __init__(self, port, upstream_port, mode="none", every=4, certificate=None, keys=None):
        self.upstream_port, self.mode, self.every, self.keys = upstream_port, mode, every, keys
        self.lock, self.count, self.faults, self.requests = threading.Lock(), 0, 0, 0
        self.listings, self.unconditional, self.forsaken, self.page = {}, False, 0, 0
        self.late, self.rate, self.free_at, self.put_seconds = None, 0, 0.0, []
        self.server = Server(("127.0.0.1", port), Handler)
        self.server.proxy = self
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def set(self, mode, every=4):
        with self.lock:
            self.mode, self.every, self.count, self.faults, self.requests = mode, every, 0, 0, 0

    def delay(self, size):
        seconds = self.late() if self.late else 0.0
        if self.rate:
            with self.lock:
                now = time.monotonic()
                self.free_at = max(self.free_at, now) + size / self.rate
                seconds += self.free_at - now
        time.sleep(seconds)

    def applies(self, request):
        method = request.first.split(" ")[0]
        if self.mode == "none" or self.mode in SELECTIVE:
            return False
        if self.mode == "corrupt_up":
            return method == "PUT" and int(request.headers.get("content-length", 0)) > 100
        if self.mode in PUT_MODES:
            return method == "PUT" and "partNumber" not in request.first
        if self.mode == "reset_part":
            return method == "PUT" and "partNumber" in request.first
        if self.mode in COMPLETE_MODES:
            return method == "POST" and "uploadId" in request.first
        if self.mode in ABANDON_MODES:
            return "abandon" in request.first and "uploadId" in request.first and method in ABANDON_MODES[self.mode]
        if self.mode in LIST_MODES:
            return "list-type=2" in request.first
        if self.mode in BODY_MODES or self.mode == "slow":
            return method == "GET" and "list-type" not in request.first
        return True

    def choose(self, request):
        with self.lock:
            self.requests += 1
            if not self.applies(request):
                return None
            self.count += 1
            if self.mode == "slow_put_throttled" and self.count == THROTTLED_PUT:
                return "slowdown"
            if self.count % self.every != 0:
                return None
            self.faults += 1
            if self.mode == "forsake" and request.first.startswith("DELETE"):
                self.forsaken += 1
                return "forsaken" if self.forsaken == 1 else None
            return "slow_put" if self.mode == "slow_put_throttled" else self.mode

    def refuse(self, request):
        if self.keys is not None:
            key = re.search(r"Credential=([^/]+)/", request.headers.get("authorization", ""))
            if not key or key.group(1) not in self.keys():
                return error(400, "ExpiredToken")
        refusal = self.refusal(request) if self.mode in SELECTIVE else None
        self.faults += refusal is not None
        return refusal

    def refusal(self, request):
        signed, method = request.headers.get("authorization", ""), request.first.split(" ")[0]
        if self.mode in ("skew", "skew_mute"):
            ahead = time.time() + 3600
            at = request.headers.get("x-amz-date", "19700101T000000Z")
            told = "" if self.mode == "skew_mute" else f"Date: {email.utils.formatdate(ahead, usegmt=True)}\r\n"
            if abs(calendar.timegm(time.strptime(at, "%Y%m%dT%H%M%SZ")) - ahead) > 900:
                return error(403, "RequestTimeTooSkewed", told)
        if self.mode == "region" and "/eu-west-1/s3/" not in signed:
            return error(400, "AuthorizationHeaderMalformed", more="<Region>eu-west-1</Region>")
        if self.mode == "denied" and method not in ("GET", "HEAD"):
            return error(403, "AccessDenied")
        if self.mode == "denied_list" and "list-type=2" in request.first:
            return error(403, "AccessDenied")
        return None

    def listing(self, request, answer):
        return self.listings.setdefault(request.first, answer.body)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
