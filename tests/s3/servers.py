"""S3 servers to test against, from the package registries, in the cache ($LEAT_CACHE/s3)."""
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
import harness  # noqa: E402

DIRECTORY = os.path.join(harness.CACHE, "s3")
ACCESS_KEY, SECRET_KEY, BUCKET = "testkey", "testsecret", "bucket"
GO_SERVERS = {
    "versitygw": ("github.com/versity/versitygw/cmd/versitygw", "v1.8.0"),
    "minio": ("github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c"),
}
S3PROXY = "org.gaul:s3proxy:3.0.0"
MOTO = "moto[server]==5.2.2"


def install_go_server(name):
    package, version = GO_SERVERS[name]
    program = os.path.join(DIRECTORY, f"{name}-{version}")
    with harness.locked("s3-" + name):
        if not os.path.exists(program):
            into = os.path.join(DIRECTORY, f"{name}-build")
            environment = dict(os.environ, GOFLAGS="-mod=mod", GOCACHE=os.path.join(harness.CACHE, "go-build"),
                               GOPATH=os.path.join(harness.CACHE, "gopath"), GOBIN=into, CGO_ENABLED="0",
                               GOTOOLCHAIN="local")
            print(f"building {name} {version} (once)", flush=True)
            harness.run_quietly([harness.go_tool(), "install", "-p", "2", "-trimpath", "-ldflags=-s",
                                 f"{package}@{version}"], f"go install {package}", env=environment)
            os.rename(os.path.join(into, name), program)
            shutil.rmtree(into, ignore_errors=True)
    return program


def install_moto():
    def make(directory):
        harness.run_quietly([sys.executable, "-m", "venv", directory], "python3 -m venv")
        harness.run_quietly([os.path.join(directory, "bin", "pip"), "install", "-q", MOTO], "pip install moto")
    with harness.locked("s3-moto"):
        directory = harness.built(os.path.join(DIRECTORY, "moto"), harness.fingerprint(MOTO), make)
    return os.path.join(directory, "bin", "moto_server")


def install_s3proxy():
    """Its class path."""
    harness.need("mvn", "maven")
    directory = os.path.join(DIRECTORY, S3PROXY.replace(":", "-"))
    with harness.locked("s3-s3proxy"):
        harness.run_quietly([os.path.join(harness.HERE, "peers", "maven.sh"), directory, S3PROXY], "maven.sh")
    return os.path.join(directory, "*")


def install(kind):
    """What the server's command begins with."""
    return {"moto": install_moto, "s3proxy": install_s3proxy}.get(kind, lambda: install_go_server(kind))()


class S3Server:
    """One server with its data in a directory of its own and one bucket."""

    def __init__(self, kind, directory, port):
        self.kind, self.port, self.process = kind, port, None
        self.directory = os.path.join(directory, kind)
        self.log = os.path.join(directory, kind + ".log")
        os.makedirs(self.directory, exist_ok=True)
        self.program = install(kind)

    def command(self):
        address = f"127.0.0.1:{self.port}"
        if self.kind == "versitygw":
            os.makedirs(os.path.join(self.directory, BUCKET), exist_ok=True)
            return [self.program, "--port", address, "--quiet", "--keep-alive", "posix", self.directory]
        if self.kind == "minio":
            return [self.program, "server", "--quiet", "--address", address, self.directory]
        if self.kind == "s3proxy":
            return self.s3proxy_command()
        return [self.program, "-H", "127.0.0.1", "-p", str(self.port)]

    def s3proxy_command(self):
        """It reads what it is to do from files."""
        os.makedirs(os.path.join(self.directory, BUCKET), exist_ok=True)
        settings, logging = self.log + ".conf", self.log + ".xml"
        with open(settings, "w") as f:
            f.write(f"s3proxy.endpoint=http://127.0.0.1:{self.port}\ns3proxy.authorization=aws-v2-or-v4\n"
                    f"s3proxy.identity={ACCESS_KEY}\ns3proxy.credential={SECRET_KEY}\n"
                    f"s3proxy.v4-max-non-chunked-request-size={1 << 28}\n"
                    f"jclouds.provider=filesystem-nio2\njclouds.filesystem.basedir={self.directory}\n")
        with open(logging, "w") as f:
            f.write('<configuration><appender name="out" class="ch.qos.logback.core.ConsoleAppender"><encoder>'
                    '<pattern>%d %p %c: %m%n</pattern></encoder></appender><root level="warn"><appender-ref ref="out"/>'
                    '</root></configuration>')
        return [harness.java(), "-Xmx512m", f"-Dlogback.configurationFile={logging}", "-cp", self.program,
                "org.gaul.s3proxy.Main", "--properties", settings]

    def start(self, before_exec=harness.die_with_parent):
        environment = dict(os.environ, ROOT_ACCESS_KEY=ACCESS_KEY, ROOT_SECRET_KEY=SECRET_KEY,
                           MINIO_ROOT_USER=ACCESS_KEY, MINIO_ROOT_PASSWORD=SECRET_KEY, MINIO_BROWSER="off",
                           MINIO_UPDATE="off")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                            env=environment, start_new_session=True, preexec_fn=before_exec)
        end = time.monotonic() + 60
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise harness.Missing(f"{self.kind} did not come up:\n{open(self.log, errors='replace').read()[-2000:]}")
            time.sleep(0.05)
        if self.kind == "moto":
            self.ask("PUT", f"/{BUCKET}")
        elif self.kind == "minio":
            os.makedirs(os.path.join(self.directory, BUCKET), exist_ok=True)
        return self

    def ask(self, method, path):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as e:
            return e.code

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                pass
            return self.kind != "minio" or self.ask("GET", "/minio/health/ready") == 200
        except OSError:
            return False

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def url(self, prefix="", port=None, scheme="http"):
        return f"s3://{BUCKET}/{prefix}?endpoint={scheme}://127.0.0.1:{port or self.port}"
