"""What a cloud machine has around it: the instance's metadata service (version 2 only), a container's
credentials endpoint, and the token service. All give out keys that live for `life` seconds, each time
new ones; `valid()` says which are good now."""
import http.server
import json
import threading
import time
import urllib.parse


def stamp(at):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, text, status=200):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def document(self):
        key, expires = self.server.cloud.issue()
        return json.dumps({"Code": "Success", "AccessKeyId": key, "SecretAccessKey": "secret-of-" + key,
                           "Token": "token-of-" + key, "Expiration": stamp(expires)})

    def do_PUT(self):
        cloud = self.server.cloud
        if self.path == "/latest/api/token" and self.headers.get("x-aws-ec2-metadata-token-ttl-seconds"):
            cloud.count("token")
            return self.answer("imds-session")
        return self.answer("no", 404)

    def do_GET(self):
        cloud = self.server.cloud
        if cloud.broken:
            return self.answer("broken", 500)
        if self.path == "/container":
            cloud.count("container")
            if self.headers.get("authorization") != "container-secret":
                return self.answer("who are you", 401)
            return self.answer(self.document())
        if self.headers.get("x-aws-ec2-metadata-token") != "imds-session":
            return self.answer("version 1 is off", 401)
        if self.path == "/latest/meta-data/iam/security-credentials/":
            return self.answer("the-role")
        if self.path == "/latest/meta-data/iam/security-credentials/the-role":
            cloud.count("instance")
            return self.answer(self.document())
        return self.answer("no", 404)

    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        cloud = self.server.cloud
        if form.get("WebIdentityToken") != ["identity+/token"] or form.get("RoleArn") != ["arn:aws:iam::1:role/leat"]:
            return self.answer("<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>not this token"
                               "</Message></Error></ErrorResponse>", 400)
        cloud.count("sts")
        key, expires = cloud.issue()
        return self.answer(f"<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
                           f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret-of-{key}</SecretAccessKey>"
                           f"<SessionToken>token-of-{key}</SessionToken><Expiration>{stamp(expires)}</Expiration>"
                           f"</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>")


class FakeCloud:
    def __init__(self, port, life=3600):
        self.life, self.broken = life, False
        self.lock, self.number, self.issued, self.counts = threading.Lock(), 0, {}, {}
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.server.cloud = self
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def issue(self):
        with self.lock:
            self.number += 1
            key, expires = f"ASIA{self.number:04}", time.time() + self.life
            self.issued[key] = expires
            return key, expires

    def valid(self):
        with self.lock:
            return {k for k, expires in self.issued.items() if expires > time.time()}

    def revoke(self):
        """What was given out so far is good no more, whatever it says itself."""
        with self.lock:
            self.issued.clear()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
