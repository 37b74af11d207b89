"""PostgreSQL and Redis for whoever needs them: those the settings name, else embedded ones."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from gateway.embedded.home import Announcement, Home, Lock
from gateway.embedded.postgres import STOP_SECONDS_MAX, Postgres
from gateway.embedded.processes import POLL_SECONDS, free_port, is_free, wait_until
from gateway.embedded.valkey import Valkey
from gateway.errors import Unavailable, Unusable
from gateway.settings import Settings

READY_SECONDS_MAX: Final = 120
"""Recovery after a crash comes before the first answer, hence so long."""

ATTACH_SECONDS_MAX: Final = 120
CHECK_SECONDS_MAX: Final = 4
NOTICE_SECONDS: Final = 1
PORT_TRIES_MAX: Final = 3


@dataclass(frozen=True)
class Services:
    """Where PostgreSQL and Redis are. Both addresses bear passwords: never print one."""

    database_url: str
    """As libpq takes it: postgresql://user:password@host:port/database."""
    redis_url: str
    embedded: bool
    """Whether at least one of them is run by Wasl."""


@contextmanager
def running_services(settings: Settings) -> Iterator[Services]:
    """Give the services that the settings name, running the ones they do not name in the home.

    Many commands may share a home. The first one runs the services and stops them when it is done
    and nobody else uses them any more; the others use them. Each start takes new ports. Should the
    first be killed, the services end, and the next command starts them anew on the same data.

    To be called from a thread that lives as long as the services: they end with it.

    Raises:
        Unavailable: A service cannot be started, in one sentence that says what to do.
        Unusable: Production without its own PostgreSQL and Redis.
    """
    database_url = settings.database_url.get_secret_value() if settings.database_url else None
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    if database_url and redis_url:
        yield Services(database_url, redis_url, embedded=False)
        return
    refuse_in_production(settings)
    home = Home(settings.home)
    home.prepare()
    with _owned_or_attached(
        home, postgres=database_url is None, valkey=redis_url is None
    ) as embedded:
        yield Services(
            _given(database_url or embedded.database_url, home, "WASL_DATABASE_URL", embedded),
            _given(redis_url or embedded.redis_url, home, "WASL_REDIS_URL", embedded),
            embedded=True,
        )


def refuse_in_production(settings: Settings) -> None:
    """Stop where production would run on embedded services.

    Raises:
        Unusable: It would.
    """
    if settings.mode == "production" and not (settings.database_url and settings.redis_url):
        raise Unusable(
            "Production runs on no embedded services: set WASL_DATABASE_URL and WASL_REDIS_URL."
        )


class EmbeddedServices:
    """The services of a home, run by the one process that claims them.

    `claim`, then `start`, then `stop`, which also gives the claim back. The two members can be
    started again one by one, as a supervisor does.
    """

    def __init__(self, home: Home, *, postgres: bool = True, valkey: bool = True) -> None:
        self.postgres: Postgres | None = None
        self.valkey: Valkey | None = None
        self._home = home
        self._wanted = (postgres, valkey)
        self._ownership = Lock(home.services_lock)
        self._users = Lock(home.users_lock)

    def claim(self) -> bool:
        """Become the owner unless another process is; say whether we are."""
        if not self._ownership.take():
            return False
        self._home.withdraw_announcement()
        return True

    def start(self) -> Announcement:
        """Start what is wanted, wait until all of it answers, and tell other commands."""
        assert self.is_ours
        if self._wanted[0]:
            self.postgres = Postgres(self._home)
        if self._wanted[1]:
            self.valkey = Valkey(self._home)
        for service in self.members:
            service.start()
        for service in self.members:
            _wait_ready(service)
        return self._home.announce(
            database_url=self.postgres.url if self.postgres else None,
            redis_url=self.valkey.url if self.valkey else None,
        )

    @property
    def is_ours(self) -> bool:
        """Whether we claimed them and have not stopped them."""
        return self._ownership.is_held

    @property
    def members(self) -> list[Postgres | Valkey]:
        """What runs, in the order of starting."""
        return [service for service in (self.valkey, self.postgres) if service is not None]

    def wait_for_users(self, give_up: Callable[[float], bool] = lambda _waited: False) -> None:
        """Wait until no other command uses the services, or `give_up` of the seconds waited.

        Afterwards none can begin to: whoever comes waits, and then runs the services itself.
        """
        began, noticed = time.monotonic(), False
        while not self._users.take():
            waited = time.monotonic() - began
            if give_up(waited):
                return
            if waited > NOTICE_SECONDS and not noticed:
                tell(f"Another command still uses the services of {self._home.path}; waiting.")
                noticed = True
            time.sleep(POLL_SECONDS)

    def stop(self, hurried: Callable[[], bool] = lambda: False) -> None:
        """Stop everything and give the claim back; less gently once it is `hurried`."""
        assert self.is_ours, "another process announced these services"
        try:
            self._home.withdraw_announcement()
            for service in self.members:
                service.ask_to_stop()
            wait_until(
                lambda: hurried() or not any(service.is_alive() for service in self.members),
                STOP_SECONDS_MAX,
            )
            for service in self.members:
                service.stop(0)
        finally:
            self._users.release()
            self._ownership.release()


def require_answers(settings: Settings) -> None:
    """Try the PostgreSQL and Redis that the settings name, within seconds.

    Raises:
        Unavailable: One does not answer. The sentence holds nothing of its address, which may bear
            a password in a place where nobody expects one.
    """
    if settings.database_url:
        reason = _why_no_database(settings.database_url.get_secret_value())
        if reason:
            raise Unavailable(f"The PostgreSQL of WASL_DATABASE_URL cannot be used: {reason}.")
    if settings.redis_url:
        reason = _why_no_redis(settings.redis_url.get_secret_value())
        if reason:
            raise Unavailable(f"The Redis of WASL_REDIS_URL cannot be used: {reason}.")


def tell(line: str) -> None:
    """Write a line for a person: standard output is for answers."""
    sys.stderr.write(f"wasl: {line}\n")
    sys.stderr.flush()


@contextmanager
def _owned_or_attached(home: Home, *, postgres: bool, valkey: bool) -> Iterator[Announcement]:
    services = EmbeddedServices(home, postgres=postgres, valkey=valkey)
    use = Lock(home.users_lock)
    deadline = time.monotonic() + ATTACH_SECONDS_MAX
    while True:
        if services.claim():
            with _owned(services) as announcement:
                yield announcement
            return
        # Use first, look then: from here on the owner does not stop them.
        if use.take(shared=True):
            try:
                announcement_of_owner = home.announced()
                if announcement_of_owner:
                    yield announcement_of_owner
                    return
            finally:
                use.release()
        if time.monotonic() > deadline:
            raise Unavailable(
                f"Another command runs the services of {home.path} but they do not come up: see"
                f" {home.log}, or choose another WASL_HOME."
            )
        time.sleep(POLL_SECONDS)


@contextmanager
def _owned(services: EmbeddedServices) -> Iterator[Announcement]:
    try:
        announcement = services.start()
        try:
            yield announcement
        finally:
            services.wait_for_users()
    finally:
        services.stop()


def _wait_ready(service: Postgres | Valkey) -> None:
    """Wait for a service that was started; where its port was taken meanwhile, try another."""
    for tries in range(1, PORT_TRIES_MAX + 1):
        try:
            service.wait_ready(READY_SECONDS_MAX)
        except Unavailable:
            service.stop()
            if is_free(service.port) or tries == PORT_TRIES_MAX:
                raise
            service.port = free_port()
            service.start()
        else:
            return


def _why_no_database(url: str) -> str | None:
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=CHECK_SECONDS_MAX).close()
    except psycopg.OperationalError as error:
        # Only words of ours leave: the driver quotes parts of the address.
        return _first_that_fits(
            str(error),
            {
                "password authentication failed": "it does not accept the user or the password",
                "no password supplied": "it wants a password",
                "does not exist": "it has no such database or user",
                "Connection refused": "nothing listens at that address",
                "timeout": f"no answer within {CHECK_SECONDS_MAX} s",
                "resolve": "the name of its host is not known",
                "Name or service not known": "the name of its host is not known",
            },
        )
    except psycopg.Error:
        return "the address is not of the form postgresql://user:password@host:port/database"
    return None


def _why_no_redis(url: str) -> str | None:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        with redis.Redis.from_url(
            url,
            socket_connect_timeout=CHECK_SECONDS_MAX,
            socket_timeout=CHECK_SECONDS_MAX,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            client.ping()
    except redis.AuthenticationError:
        return "it does not accept the password"
    except (redis.RedisError, OSError) as error:
        return _first_that_fits(
            str(error),
            {
                "Authentication required": "it wants a password",
                "Connection refused": "nothing listens at that address",
                "imeout": f"no answer within {CHECK_SECONDS_MAX} s",
                "Name or service not known": "the name of its host is not known",
            },
        )
    except ValueError:
        return "the address is not of the form redis://:password@host:port/0"
    return None


def _first_that_fits(text: str, reasons: dict[str, str]) -> str:
    return next((reason for sign, reason in reasons.items() if sign in text), "it does not answer")


def _given(url: str | None, home: Home, variable: str, embedded: Announcement) -> str:
    if url:
        return url
    raise Unavailable(
        f"The services of {home.path} are run by process {embedded.owner}, which was given a"
        f" {variable}: give it here too, or wait until that command is done."
    )
