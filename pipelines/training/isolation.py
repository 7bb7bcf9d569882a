"""Confine a process that runs a model's training code or loads its ONNX file: few files, no network, no other process.

Linux confines a process without privileges in two ways. Landlock (https://docs.kernel.org/userspace-api/landlock.html)
limits which files it opens, and which processes it inspects. A seccomp filter refuses system calls: those that open
sockets, and others that reach around Landlock. Neither can be undone, and every process that is started later
inherits both.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipelines.declarations.errors import MlopsError

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of the package `pipelines`."""

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_RULESET_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
"""Rights that apply to a file: those above, truncate, and ioctl of devices. All others apply to folders."""

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Landlock ABI → number of rights over files that it knows; later ABIs know those of 5."""

_RIGHTS_OVER_TCP = 0b11
_SCOPES = 0b11
"""Outside the domain: no connections to abstract sockets, and no signals."""

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
_SIGKILL = 9
_SECCOMP_MODE_FILTER = 2
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION = 0x20080522

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # operations of classic BPF
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
_X32 = 0x40000000
"""Bit in the number of a system call of the x32 ABI, which has its own numbers."""


class _Machine(NamedTuple):
    """A processor architecture.

    Attributes:
        audit: its number in the kernel's audit interface.
        refused: numbers of the system calls that confined code may not use.
        capset: number of capset(2).
        prlimit: number of prlimit(2), which confined code may use for itself only: the process 0.
    """

    audit: int
    refused: dict[str, int]
    capset: int
    prlimit: int


_REFUSED_EVERYWHERE = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,  # a ring opens sockets without the system call socket
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
}

_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        {
            "socket": 41,
            "ptrace": 101,
            "setpgid": 109,  # the job ends the process and those that it started as one group
            "setsid": 112,
            "mount": 165,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "unshare": 272,
            "perf_event_open": 298,
            "setns": 308,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "kcmp": 312,
            "bpf": 321,
            "userfaultfd": 323,
            **_REFUSED_EVERYWHERE,
        },
        126,
        302,
    ),
    "aarch64": _Machine(
        0xC00000B7,
        {
            "mount": 40,
            "unshare": 97,
            "ptrace": 117,
            "setpgid": 154,
            "setsid": 157,
            "socket": 198,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "perf_event_open": 241,
            "setns": 268,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "kcmp": 272,
            "bpf": 280,
            "userfaultfd": 282,
            **_REFUSED_EVERYWHERE,
        },
        91,
        261,
    ),
}
"""Machine name → architecture. Numbers from the kernel's `syscall_64.tbl` and `asm-generic/unistd.h`."""

SYSTEM = (
    *("/bin", "/lib", "/lib64", "/usr", "/opt/venv"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/os-release"),
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/mime.types"),
    *("/dev/urandom", "/dev/random", "/dev/zero"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/sys/vm"),
    *("/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage"),
)
"""Files and folders that libraries read. Those that do not exist are skipped."""

_SHARED_MEMORY = "/dev/shm"  # noqa: S108
"""Semaphores are files in it."""


def is_enforceable() -> bool:
    """Return whether this system can confine a process. Systems other than Linux cannot."""
    return sys.platform.startswith("linux")


def signal_name(number: int) -> str:
    """Return the name of a signal; its number if it has no name, as most real-time signals."""
    known = {int(each): each.name for each in signal.Signals}
    return known.get(number, str(number))


def confine(readable: Iterable[Path], writable: Iterable[Path], *, shared_memory: bool = False) -> None:
    """Confine this process and every process that it starts. Call it before any thread starts, and so before numpy.

    Both ways confine the calling thread. Another thread would keep its rights, and shares the memory.

    From now on, the process reads only `SYSTEM` and `readable`, and writes only below `writable`. It opens no sockets,
    neither inspects, limits nor signals processes outside, and has no capabilities. Landlock leaves it the modes, times
    and attributes of files that its user owns.

    Args:
        readable, writable: files and folders.
        shared_memory: whether it may also write in /dev/shm, which processes share.

    Raises:
        MlopsError: the kernel or the architecture has no support.
        RuntimeError: this process has more than one thread.
    """
    if (threads := sum(1 for _ in Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError(f"expected one thread in the process to confine, found {threads}")
    kernel = _Kernel()
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise MlopsError(
            f"the processor architecture {platform.machine()} cannot confine code of a model: expected "
            f"{' or '.join(_MACHINES)}",
            fix="use such a machine",
        )
    kernel.prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    kernel.drop_capabilities(machine)
    kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    kernel.limit_files(readable, [*writable, *([Path(_SHARED_MEMORY)] if shared_memory else [])])
    kernel.filter_system_calls(machine)


def code_folders(path: Iterable[str]) -> list[Path]:
    """Return the folders that hold the interpreter, its libraries and this package.

    Args:
        path: entries of PYTHONPATH or `sys.path`. One that holds this package is a source tree, with files other than
            code.
    """
    libraries = [entry for entry in map(Path, filter(None, path)) if not PACKAGE.is_relative_to(entry.resolve())]
    interpreter = map(Path, (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix))
    return [PACKAGE, *interpreter, *libraries]


class _Kernel:
    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def prctl(self, *arguments: int | bytes) -> int:
        """Call prctl(2), which takes five arguments; return its result.

        Raises:
            OSError: it failed.
        """
        return _checked(self._libc.prctl(*map(_as_long, (*arguments, 0, 0, 0, 0)[:5])))

    def system_call(self, *arguments: int | bytes | None) -> int:
        """Make the system call of a number; return its result.

        Raises:
            OSError: it failed.
        """
        self._libc.syscall.restype = ctypes.c_long
        return _checked(self._libc.syscall(*map(_as_long, arguments)))

    def drop_capabilities(self, machine: _Machine) -> None:
        """Give up every capability, for programs started later as well. Without any, this changes nothing."""
        for capability in range(_LAST_CAPABILITY + 1):
            with contextlib.suppress(OSError):  # the kernel does not know it, or this process may not drop any
                self.prctl(_PR_CAPBSET_DROP, capability)
        header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
        self.system_call(machine.capset, header, bytes(24))

    def limit_files(self, readable: Iterable[Path], writable: Iterable[Path]) -> None:
        """Restrict this process by Landlock."""
        abi = self._landlock_abi()
        rights = (1 << _RIGHTS_OF_ABI.get(abi, 16)) - 1
        attributes = struct.pack("=Q", rights)
        if abi >= 4:
            attributes += struct.pack("=Q", _RIGHTS_OVER_TCP)
        if abi >= 6:
            attributes += struct.pack("=Q", _SCOPES)
        ruleset = self.system_call(_CREATE_RULESET, attributes, len(attributes), 0)
        try:
            for path in (*map(Path, SYSTEM), *readable):
                self._allow(ruleset, path, _READ & rights)
            for path in (Path(os.devnull), *writable):
                # Device files cannot be made, whatever the capabilities.
                self._allow(ruleset, path, rights & ~(1 << 6 | 1 << 11))
            self.system_call(_RESTRICT_SELF, ruleset, 0)
        finally:
            os.close(ruleset)

    def _landlock_abi(self) -> int:
        try:
            return self.system_call(_CREATE_RULESET, None, 0, _RULESET_VERSION)
        except OSError as error:
            raise MlopsError(
                f"the kernel {platform.release()} cannot confine code of a model: expected Landlock, found "
                f"{error.strerror}",
                fix="use nodes with Landlock: Amazon Linux 2023 from release 2023.8.20250804, or a recent "
                "Bottlerocket; on other systems, Linux 5.13 or later with `landlock` among the active security modules",
            ) from None

    def _allow(self, ruleset: int, path: Path, rights: int) -> None:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return
        try:
            if not path.is_dir():
                rights &= _OF_FILES
            self.system_call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, handle), 0)
        finally:
            os.close(handle)

    def filter_system_calls(self, machine: _Machine) -> None:
        """Install the seccomp filter."""
        numbers = sorted(machine.refused.values())
        program = [
            (_LOAD, 0, 0, 4),  # the architecture
            (_EQUAL, 1, 0, machine.audit),
            (_RETURN, 0, 0, _KILL),
            (_LOAD, 0, 0, 0),  # the number of the system call
            (_AT_LEAST, len(numbers) + 4, 0, _X32),
            *((_EQUAL, len(numbers) - at + 3, 0, number) for at, number in enumerate(numbers)),
            (_EQUAL, 0, 2, machine.prlimit),
            (_LOAD, 0, 0, 16),  # its first argument, the process
            (_EQUAL, 0, 1, 0),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _REFUSE),
        ]
        content = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
        instructions = ctypes.create_string_buffer(content, len(content))
        filter_ = struct.pack("@HP", len(program), ctypes.addressof(instructions))
        self.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_)


def _as_long(argument: int | bytes | None) -> object:
    """Widen an integer: functions with a variable number of arguments take whatever is in the upper half."""
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
