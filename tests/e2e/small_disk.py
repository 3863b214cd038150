"""A file system of a chosen size, for tests of full disks: an ext4 image on a loop device.

The test runs in a mount namespace of its own (enter_namespace), so that the mounts end with it however
it ends, and nobody else sees them. Where loop devices are not to be had, a tmpfs of that size takes
their place; where neither is, the test fails and says so.
"""
import atexit
import os
import shutil
import subprocess
import sys


def give_back(directory, user, group):
    for folder, _, files in os.walk(directory):
        for path in [folder, *(os.path.join(folder, f) for f in files)]:
            os.lchown(path, user, group)


def enter_namespace(work):
    """Starts this program again in a mount namespace. As root when we are or when sudo makes us so: then all in
    `work` is the user's again in the end. Else as root of a user namespace, which can mount less."""
    if os.environ.get("LEAT_MOUNT_NAMESPACE"):
        if "SUDO_UID" in os.environ:
            atexit.register(give_back, work, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))
        return
    unshare = shutil.which("unshare")
    if not unshare:
        raise AssertionError("unshare is missing: apt-get install util-linux")
    os.environ["LEAT_MOUNT_NAMESPACE"] = "1"
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # mkfs; not in the path of every user
    again = [unshare, "--mount", sys.executable, *sys.argv]
    if os.geteuid() != 0:
        if attempt("sudo", "-n", "true") is None:
            variables = [f"{k}={v}" for k, v in os.environ.items() if not k.startswith("SUDO_")]
            again = ["sudo", "-n", "env", *variables, *again]
        else:
            again[1:1] = ["--user", "--map-root-user"]
    os.execvp(again[0], again)


def attempt(*command):
    """None, or why it did not work."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as problem:
        return f"{command[0]}: {problem}"
    return None if done.returncode == 0 else f"{' '.join(command)}: {done.stderr.strip()}"


class FailingDisk:
    """An ext4 whose image lies, with holes, on a tmpfs. fail() fills that: from then on the device answers
    every write to a hole with EIO. Needs loop devices."""

    def __init__(self, directory, mebibytes, real_mebibytes):
        self.lower_path = os.path.join(directory, "lower")
        self.real_mebibytes = real_mebibytes
        self.disk = SmallDisk(self.lower_path, mebibytes, tmpfs=False)
        self.path = self.disk.path

    def __enter__(self):
        os.makedirs(self.lower_path)
        problem = attempt("mount", "-t", "tmpfs", "-o", f"size={self.real_mebibytes}m", "none", self.lower_path)
        if problem:
            raise AssertionError(f"this test needs a tmpfs, so run it as root. {problem}")
        self.disk.__enter__()
        return self

    def __exit__(self, *_):
        self.heal()
        self.disk.__exit__()
        attempt("umount", "--lazy", self.lower_path)

    def ballast(self):
        return os.path.join(self.lower_path, "ballast")

    def fail(self):
        with open(self.ballast(), "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(4096))
            except OSError:
                pass

    def heal(self):
        if os.path.exists(self.ballast()):
            os.unlink(self.ballast())


class SmallDisk:
    """with SmallDisk(directory, mebibytes) as disk: disk.path is where it is mounted."""

    def __init__(self, directory, mebibytes, tmpfs=True):
        self.image, self.path = os.path.join(directory, "disk.img"), os.path.join(directory, "disk")
        self.mebibytes, self.tmpfs = mebibytes, tmpfs

    def __enter__(self):
        os.makedirs(self.path)
        with open(self.image, "wb") as f:
            f.truncate(self.mebibytes << 20)
        # -m 0: no blocks that only root may use.
        ext4 = (attempt("mkfs.ext4", "-q", "-F", "-m", "0", self.image) or
                attempt("mount", "-o", "loop", self.image, self.path))
        if ext4 and not self.tmpfs:
            raise AssertionError(f"this test needs an ext4 on a loop device, so run it as root. {ext4}")
        if ext4:
            print(f"no ext4 on a loop device ({ext4}): a tmpfs takes its place")
            tmpfs = attempt("mount", "-t", "tmpfs", "-o", f"size={self.mebibytes}m", "none", self.path)
            if tmpfs:
                raise AssertionError("no small file system can be mounted, and this test is about one: run it as root, "
                                     f"or allow user namespaces. ext4: {ext4}; tmpfs: {tmpfs}")
        return self

    def __exit__(self, *_):
        problem = attempt("umount", self.path) and attempt("umount", "--lazy", self.path)
        if problem:
            print(problem)
        if os.path.exists(self.image):
            os.unlink(self.image)

    def remount(self):
        """What the kernel holds of it is forgotten, also that it failed."""
        problem = attempt("umount", self.path) or attempt("mount", "-o", "loop", self.image, self.path)
        if problem:
            raise AssertionError(problem)

    def free(self):
        s = os.statvfs(self.path)
        return s.f_bavail * s.f_frsize

    def fill(self, leave=0):
        """A ballast file takes all but `leave` bytes. Returns its path."""
        path = os.path.join(self.path, "ballast")
        with open(path, "wb") as f:
            try:
                while self.free() > leave:
                    f.write(bytes(max(1, min(1 << 20, self.free() - leave))))
                    f.flush()
                    os.fsync(f.fileno())
            except OSError:  # the file system takes some for itself
                pass
        return path
