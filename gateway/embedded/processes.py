"""Child processes that end with their parent, and those that a killed parent left behind."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

LOG_BYTES_MAX: Final = 16 * 1024 * 1024
"""A log larger than this is moved aside (one generation) when its process is next started."""

KILL_SECONDS_MAX: Final = 10
POLL_SECONDS: Final = 0.02

NOBODY: Final = 65534
_PR_SET_PDEATHSIG: Final = 1
_CLONE_NEWUSER: Final = 0x10000000
_LOWEST_PORT: Final = 15000

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Account:
    """Whom a child runs as; by default, as we do."""

    uid: int | None = None
    gid: int | None = None
    namespace: bool = False
    """In a user namespace of its own, where we are called nobody. Its files stay ours."""


AS_WE_ARE: Final = Account()


class Service(Protocol):
    """What a supervisor can start, watch and start again."""

    name: str
    log: Path

    @property
    def pid(self) -> int | None: ...

    def start(self) -> None: ...

    def is_alive(self) -> bool: ...

    def ask_to_stop(self) -> None: ...

    def stop(self, seconds: float) -> None: ...


class Process:
    """One program run as a child in a session of its own; it may be started again when it ended.

    The session keeps a Ctrl-C in the terminal from reaching it: that is for us, and we stop our
    children in order. What the program forks is in its process group and ends with it.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        death_signal: signal.Signals,
        environment: Mapping[str, str],
        directory: Path | None = None,
        account: Account = AS_WE_ARE,
    ) -> None:
        """Describe it.

        Args:
            name: For people.
            argv: Program and arguments. Anybody on the machine can read them: no secrets.
            log: Where its output is appended.
            death_signal: What asks it to end, sent by us or, should we be killed, by the kernel.
            environment: All of it; nothing is inherited.
            directory: Where it runs.
            account: Whom it runs as.
        """
        self.name = name
        self.log = log
        self._argv = argv
        self._death_signal = death_signal
        self._environment = environment
        self._directory = directory
        self._account = account
        self._child: subprocess.Popen[bytes] | None = None
        self._asked_with: signal.Signals | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it is alive."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Start it. It must not be running."""
        assert self._child is None, f"{self.name} is running"
        with open_log(self.log) as output:
            self._child = spawn(
                self._argv,
                output=output.fileno(),
                death_signal=self._death_signal,
                environment=self._environment,
                directory=self._directory,
                account=self._account,
            )

    def is_alive(self) -> bool:
        """Say whether it runs; the first no also ends what it forked."""
        child = self._child
        if child is None:
            return False
        # WNOWAIT leaves the zombie in place. While it is there its number, which is also that of
        # its group, cannot be given to a stranger, so the group may be killed.
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return True
        self._bury(child)
        return False

    def ask_to_stop(self, *, with_signal: signal.Signals | None = None) -> None:
        """Send its signal, unless it was sent before, and return at once."""
        wanted = with_signal or self._death_signal
        if self.is_alive() and self._child and wanted is not self._asked_with:
            self._child.send_signal(wanted)
            self._asked_with = wanted

    def stop(self, seconds: float) -> None:
        """Ask it to stop, wait so long, then kill it and what it forked."""
        self.ask_to_stop()
        if self.wait(seconds) or self._child is None:
            return
        kill_group(self._child.pid)
        self.wait(KILL_SECONDS_MAX)

    def wait(self, seconds: float) -> bool:
        """Wait for it to end; say whether it did."""
        return wait_until(lambda: not self.is_alive(), seconds)

    def _bury(self, child: subprocess.Popen[bytes]) -> None:
        kill_group(child.pid)
        child.wait()
        self._child = None
        self._asked_with = None


def spawn(
    argv: Sequence[str | Path],
    *,
    output: int,
    death_signal: signal.Signals,
    environment: Mapping[str, str],
    stdin: int = subprocess.DEVNULL,
    directory: Path | None = None,
    account: Account = AS_WE_ARE,
) -> subprocess.Popen[bytes]:
    """Start a program that gets a signal when we end, however we end.

    "We" is the *thread* that calls this: the kernel sends the signal when the spawning thread
    ends, not when its process does. So call it from a thread that stays, as the main one.

    Raises:
        OSError: The program or the directory cannot be used by that account.
        subprocess.SubprocessError: The account cannot be taken.
    """
    return subprocess.Popen(  # noqa: S603  # programs we chose, no shell
        argv,
        stdin=stdin,
        stdout=output,
        stderr=output,
        cwd=directory,
        env=environment,
        start_new_session=True,
        user=account.uid,
        group=account.gid,
        extra_groups=None if account.uid is None else [],
        # Runs in the forked child, before the program: system calls only, no locks.
        preexec_fn=_preparation(account, death_signal),  # noqa: PLW1509
    )


def _preparation(account: Account, death_signal: signal.Signals) -> Callable[[], None]:
    parent = os.getpid()
    uid, gid = os.getuid(), os.getgid()

    def prepare() -> None:
        if account.namespace:
            _enter_namespace(uid, gid)
        # Last, since a change of credentials clears it.
        if _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "PR_SET_PDEATHSIG")
        if os.getppid() != parent:
            # The parent ended before the kernel was asked to tell us.
            os._exit(1)

    return prepare


def _enter_namespace(uid: int, gid: int) -> None:
    """Enter a user namespace where we are called nobody.

    PostgreSQL refuses to be called root, and initdb to be called what no account is named;
    nobody is there on every machine.
    """
    if _libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    maps = {
        "setgroups": "deny",
        "uid_map": f"{NOBODY} {uid} 1",
        "gid_map": f"{NOBODY} {gid} 1",
    }
    for name, text in maps.items():
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)


def can_run(argv: Sequence[str | Path], account: Account, directory: Path, seconds: float) -> bool:
    """Try whether an account can run a program and enter a directory."""

    def enter() -> None:
        if account.namespace:
            _enter_namespace(os.getuid(), os.getgid())
        # After the change of account, unlike Popen's own cwd.
        os.chdir(directory)

    try:
        done = subprocess.run(  # noqa: S603  # programs we chose, no shell
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=seconds,
            user=account.uid,
            group=account.gid,
            extra_groups=None if account.uid is None else [],
            preexec_fn=enter,  # as in spawn
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def service_environment() -> dict[str, str]:
    """Return the environment of a service: little, since a setting of ours may be a secret."""
    kept = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return environment | {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition on the monotonic clock; say whether it came."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def free_port() -> int:
    """Return a port of 127.0.0.1 where nobody listens.

    Below the range the kernel takes outgoing connections' ports from. In that range a client that
    tries a stopped server again and again ends up connected to itself, and the server cannot come
    back on its port.
    """
    lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if lowest_outgoing > _LOWEST_PORT:
        for port in secrets.SystemRandom().sample(range(_LOWEST_PORT, lowest_outgoing), 50):
            if is_free(port):
                return port
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        assert isinstance(port, int)
        return port


def is_free(port: int) -> bool:
    """Say whether a server could listen on a port of 127.0.0.1."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(1)
        except OSError:
            return False
    return True


def started_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot; None if there is none.

    A process id alone may have gone to another process; with this it names one.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # A zombie holds nothing any more; its parent just has not looked.
    return None if fields[0] in "ZX" else int(fields[19])


def processes_in(directory: Path, program: str) -> list[int]:
    """Return the processes of a program that run in a directory, zombies left out."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in numbers if _runs_in(pid, directory, program)]


def _runs_in(pid: int, directory: Path, program: str) -> bool:
    entry = Path(f"/proc/{pid}")
    try:
        if (entry / "comm").read_text().strip() != program or started_ticks(pid) is None:
            return False
        try:
            return (entry / "cwd").readlink() == directory
        except PermissionError:
            # In a container, root may not look at the directories of others; arguments all may.
            return str(directory) in (entry / "cmdline").read_text().split("\0")
    except OSError:  # it ended meanwhile
        return False


def signal_if_there(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may just have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def kill_group(leader: int) -> None:
    """End a process and what it forked. The caller has not reaped it, so the number is its own."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Gone; or only the zombie is left, of an account we may not signal.
        return


def open_log(path: Path) -> BinaryIO:
    """Open a log to append to, moving it aside first when it has grown too large."""
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_name(path.name + ".1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "ab")
