"""Confines a Python program and runs it: the first process of `sandbox.run`, with the standard library alone.

    python -I -S sandbox_launcher.py FOLDER < request.json

In this order: new namespaces for the network (without any device), mounts, processes and IPC, and for users
unless the superuser calls; a root folder in memory that holds nothing but the interpreter and the system's
libraries, all read-only; a user without rights; limits of CPU time, address space, files (none can get a
byte), processes (no further one), open files and core dumps; an empty environment. The interpreter is then
executed, which drops the capabilities within the namespaces, with /dev/null as its input and output.

It prints "passed", "failed" or "timeout" and exits with 0, or prints why the program could not be confined,
and exits with 3 without having run it.
"""

import ctypes
import fcntl
import json
import os
import resource
import secrets
import signal
import sys

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 1, 2, 4, 32
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_NOBODY = 65534
_NOT_CONFINED = 3
_OPEN_FILES = 32
# Folders of shared libraries and of an interpreter of the system; those that exist are shown.
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin")
# Descriptors of the interpreter: the program, where its end is reported, and where errors before it are.
_PROGRAM, _END, _ERROR = 3, 4, 5
# Sets have the same order in each run: isolated mode (-I) would ignore the variable, which then has to go.
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
_FLAGS = ["-s", "-S", "-P", "-c"]
_RUN = f"""\
import os
os.environ.clear()
with os.fdopen({_PROGRAM}, encoding="utf-8") as file:
    word, program = file.readline().strip(), file.read()
exec(compile(program, "program", "exec"), {{"__name__": "__main__"}})
os.write({_END}, word.encode())
"""

_libc = ctypes.CDLL(None, use_errno=True)


def main(folder: str) -> None:
    """Runs the program of the request on standard input; `folder` is an empty folder for the mounts."""
    request = json.load(sys.stdin)
    is_superuser = os.geteuid() == 0
    _enter_namespaces(is_superuser)
    _build_root(folder, request["prefix"], request["python"])
    word = secrets.token_hex(16)
    program = os.memfd_create("program")
    os.write(program, f"{word}\n{request['program']}".encode("utf-8", "replace"))
    os.lseek(program, 0, os.SEEK_SET)
    end_reader, end_writer = os.pipe()
    error_reader, error_writer = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        try:
            _give_up_rights(folder, is_superuser)
            _place({_PROGRAM: program, _END: end_writer, _ERROR: error_writer})
            _become_program(request)
        except BaseException as error:
            os.write(error_writer, repr(error).encode()[:400])
            os._exit(_NOT_CONFINED)
    os.close(end_writer)
    os.close(error_writer)
    outcome = _outcome(child, request["seconds"])
    # Both are read after the end of the process, so that nothing waits for a program that never writes.
    if error := os.read(error_reader, 400).decode(errors="replace"):
        raise OSError(error)
    said = os.read(end_reader, 1000).decode(errors="replace")
    print(("passed" if said == word else "failed") if outcome == "ended" else outcome)


def _outcome(child: int, seconds: float) -> str:
    """Waits for a process and returns "ended", or "timeout" after killing it or if the kernel did."""
    signal.sigtimedwait({signal.SIGCHLD}, seconds)
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid == 0:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    # The limit of CPU time ends in the same signal.
    return "timeout" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else "ended"


def _call(name: str, *arguments: object) -> None:
    """Calls a function of the C library; raises OSError if it fails."""
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _enter_namespaces(is_superuser: bool) -> None:
    uid, gid = os.geteuid(), os.getegid()
    flags = _NEWNS | _NEWIPC | _NEWPID | _NEWNET
    _call("unshare", flags if is_superuser else flags | _NEWUSER)
    if is_superuser:
        return
    # The user keeps its id, so that executing another program takes away what it may do in the namespaces.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _build_root(folder: str, prefix: str, python: str) -> None:
    """Makes `folder` a root in memory that shows the interpreter and the libraries, and nothing else."""
    _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    _call("mount", b"tmpfs", folder.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, b"size=1m,mode=755")
    shown = [path for path in _SYSTEM if os.path.exists(path)]
    for path in (prefix, os.path.dirname(python)):
        if not any(os.path.commonpath((path, above)) == above for above in shown):
            shown.append(path)
    for path in shown:
        target = folder + path
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
            continue
        os.makedirs(target, exist_ok=True)
        _call("mount", path.encode(), target.encode(), None, _MS_BIND | _MS_REC, None)
        flags = _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _locked_flags(target)
        _call("mount", None, target.encode(), None, flags, None)
    os.mkdir(folder + "/work")
    _call("mount", None, folder.encode(), None, _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV, b"size=1m")


def _locked_flags(path: str) -> int:
    """Returns the flags of a mount that a user namespace must not clear."""
    present = os.statvfs(path).f_flag
    # ST_NOEXEC, ST_NOATIME and ST_NODIRATIME equal the flags of mount(2), ST_RELATIME (4096) does not.
    return present & (8 | 1024 | 2048) | (1 << 21 if present & 4096 else 0)


def _give_up_rights(folder: str, is_superuser: bool) -> None:
    """Enters the new root and gives up the user's rights there; the process dies with the launcher."""
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.chroot(folder)
    os.chdir("/work")
    if is_superuser:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _place(descriptors: dict[int, int]) -> None:
    """Puts open files at the given descriptors, which the program inherits, and closes all others."""
    # First out of the way, since one may stand where another belongs.
    moved = {to: fcntl.fcntl(at, fcntl.F_DUPFD, _OPEN_FILES) for to, at in descriptors.items()}
    for to, at in moved.items():
        os.dup2(at, to, inheritable=to != _ERROR)
    os.closerange(max(descriptors) + 1, 4096)


def _become_program(request: dict) -> None:
    """Sets the limits, which cannot be raised again, and executes the interpreter."""
    for name, value in (
        ("RLIMIT_CPU", request["cpu_seconds"]),
        ("RLIMIT_AS", request["memory"]),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_NPROC", 0),
        ("RLIMIT_NOFILE", _OPEN_FILES),
        ("RLIMIT_CORE", 0),
    ):
        resource.setrlimit(getattr(resource, name), (value, value))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.execve(request["python"], [request["python"], *_FLAGS, _RUN], _ENVIRONMENT)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(_NOT_CONFINED)
