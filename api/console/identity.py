"""People who use the console: signed in by an API key, named by a proxy in front, or anybody where no key is asked."""

import ipaddress
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from flask import Response, g, request

from api.auth import Gate
from api.console.sessions import COOKIE, PURPOSE, BrowserSession, Sessions, new_session
from api.serving.workers import PEER
from config.allowed_hosts import AllowedHosts
from config.wiring import Wiring
from notifier.security.api_keys import ANONYMOUS, Caller, Scope
from notifier.security.signing_keys import signing_key

_PATH: Final = "/console"
_LONGEST_NAME: Final = 254
#: Scopes of a person whom a proxy names.
_LOOKS: Final = frozenset({Scope.READ})
_ACTS: Final = frozenset({Scope.READ, Scope.SEND, Scope.ADMIN})


class NotSignedIn(Exception):
    """This page is for people who are signed in."""


class Console:
    """Lets people in, by the settings of one API process."""

    def __init__(self, wires: Wiring, gate: Gate) -> None:
        settings = wires.settings
        self._wires, self._settings = wires, settings
        self.gate = gate
        #: Whether it opens without a key.
        self.is_open = settings.auth == "off"
        self._hosts = AllowedHosts(settings.public_url, settings.allowed_hosts)
        self._is_secure = urlsplit(settings.public_url).scheme == "https"
        self._sessions: Sessions | None = None

    @property
    def sessions(self) -> Sessions:
        """Return the sessions. Reads their key from the database, once."""
        if self._sessions is None:
            secret = signing_key(self._wires.engine, self._wires.vault, PURPOSE, seal=True)
            self._sessions = Sessions(secret, self._settings.console_session)
        return self._sessions

    def enter(self) -> BrowserSession:
        """Return the session of this request, with its person as `g.caller`. Raises NotSignedIn."""
        session = self.sessions.read(request.cookies.get(COOKIE))
        person = self._person(session)
        if person is None or Scope.READ not in person.scopes:
            raise NotSignedIn
        g.caller = person
        if session is None or (session.key_hash is None) != self._is_known_otherwise():
            session = g.begun = new_session()
        return session

    def _is_known_otherwise(self) -> bool:
        return self.is_open or self.person_of_proxy() is not None

    def _person(self, session: BrowserSession | None) -> Caller | None:
        if self.is_open:
            return ANONYMOUS
        if (named := self.person_of_proxy()) is not None:
            return named
        if session is None or session.key_hash is None:
            return None
        return self.gate.caller_of_hash(session.key_hash)

    def person_of_proxy(self) -> Caller | None:
        """Return the person whom a trusted proxy names in the header of the settings; None where there is none."""
        header = self._settings.console_user_header
        if header is None or not self._is_from_proxy():
            return None
        name = _name_in(request.headers.get(header, ""))
        if not name or len(name) > _LONGEST_NAME or not name.isprintable():
            return None
        scopes = _ACTS if name in self._settings.console_admins else _LOOKS
        return Caller(f"console:{name}", scopes, f"console:{name}")

    def _is_from_proxy(self) -> bool:
        try:
            peer = ipaddress.ip_address(request.environ.get(PEER, ""))
        except ValueError:
            return False
        peer = getattr(peer, "ipv4_mapped", None) or peer
        return any(peer in network for network in self._settings.trusted_proxies)

    def is_own_form(self) -> bool:
        """Tell whether a form may be from a page of ours: browsers say where a form is from."""
        headers = request.headers
        return self._hosts.is_own_page(headers.get("Host"), headers.get("Origin"), headers.get("Sec-Fetch-Site"))

    def write(self, response: Response, session: BrowserSession | None) -> None:
        """Give the browser its session, or have it forget the one it has."""
        if session is None:
            self.drop_cookie(response, COOKIE)
        else:
            self.set_cookie(response, COOKIE, self.sessions.written(session), self.sessions.seconds)

    def set_cookie(self, response: Response, name: str, value: str, seconds: int) -> None:
        """Give the browser a cookie for the console's own pages alone, out of the reach of scripts."""
        response.set_cookie(
            name, value, max_age=seconds, path=_PATH, secure=self._is_secure, httponly=True, samesite="Strict"
        )

    def drop_cookie(self, response: Response, name: str) -> None:
        """Have the browser forget a cookie."""
        response.delete_cookie(name, path=_PATH)


def _name_in(header: str) -> str:
    """Return the name in a header, which WSGI gives as Latin-1; none where it is not of UTF-8."""
    try:
        return header.encode("latin-1").decode().strip(" \t")
    except UnicodeError:
        return ""


def lifetime_in_words(lifetime: timedelta) -> str:
    """Return a session's lifetime in hours, or in minutes where it is shorter."""
    minutes = int(lifetime.total_seconds() // 60)
    return f"{minutes // 60} hours" if minutes >= 120 else f"{minutes} minutes"
