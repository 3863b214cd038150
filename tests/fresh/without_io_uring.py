#!/usr/bin/env python3
"""Runs a command whose io_uring calls fail, as under the seccomp profile of a container runtime.

without_io_uring.py EPERM|ENOSYS COMMAND...
"""
import ctypes
import errno
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
RET_ERRNO, RET_ALLOW = 0x00050000, 0x7FFF0000
LOAD, JUMP_GE, RETURN = 0x20, 0x35, 0x06  # BPF; word 0 of what is looked at is the number of the call
SETUP, AFTER_REGISTER = 425, 428          # io_uring_setup, _enter, _register, on every architecture


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def main():
    value = getattr(errno, sys.argv[1])
    instructions = b"".join(struct.pack("=HBBI", *i) for i in [
        (LOAD, 0, 0, 0), (JUMP_GE, 0, 2, SETUP), (JUMP_GE, 1, 0, AFTER_REGISTER),
        (RETURN, 0, 0, RET_ERRNO | value), (RETURN, 0, 0, RET_ALLOW)])
    held = ctypes.create_string_buffer(instructions, len(instructions))
    program = Program(len(instructions) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or \
            libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        sys.exit(f"without_io_uring: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
