"""Who is signed in: the token itself, or a signed value in a cookie that was made from it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

SESSION_SECONDS = 30 * 24 * 3600


class Sessions:
    """Makes and checks session values. The token can't be got back from one.

    A value is `issued.nonce.mac`, with `mac` = HMAC-SHA256 of the rest under the token: a new
    token ends all sessions, and nothing has to be stored.
    """

    def __init__(self, token: str, clock: Callable[[], float] = time.time) -> None:
        if not token:
            raise ValueError("A token is needed; Settings.prepare() makes one.")
        self._token = token.encode()
        self._clock = clock
        # Cookies know no ports: two servers on one machine must not share a name.
        self.cookie_name = "prunescope-" + self._sign(b"cookie name")[:8]

    def _sign(self, text: bytes) -> str:
        return hmac.new(self._token, b"prunescope session\0" + text, hashlib.sha256).hexdigest()

    def is_token(self, candidate: str) -> bool:
        # Digests of equal length, so that the comparison tells nothing about the token's length.
        given = hashlib.sha256(candidate.encode("utf-8", "surrogatepass")).digest()
        return hmac.compare_digest(given, hashlib.sha256(self._token).digest())

    def issue(self) -> str:
        text = f"{int(self._clock())}.{secrets.token_hex(8)}"
        return f"{text}.{self._sign(text.encode())}"

    def is_valid(self, value: str) -> bool:
        text, _, mac = value.rpartition(".")
        expected = self._sign(text.encode("utf-8", "surrogatepass"))
        if not hmac.compare_digest(mac.encode("utf-8", "surrogatepass"), expected.encode()):
            return False
        issued = int(text.partition(".")[0])
        return 0 <= self._clock() - issued + 60 <= SESSION_SECONDS


class FailureLimit:
    """Slows down guessing: at most `allowed` failures an address in `seconds`."""

    def __init__(
        self,
        allowed: int = 10,
        seconds: float = 60.0,
        *,
        addresses: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed = allowed
        self._seconds = seconds
        self._addresses = addresses
        self._clock = clock
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds until this address may try again; 0 when it may now."""
        now = self._clock()
        recent = [at for at in self._failures.get(address, ()) if now - at < self._seconds]
        if len(recent) < self._allowed:
            return 0.0
        return self._seconds - (now - recent[-self._allowed])

    def failed(self, address: str) -> None:
        now = self._clock()
        recent = [at for at in self._failures.pop(address, ()) if now - at < self._seconds]
        self._failures[address] = [*recent, now][-self._allowed :]
        while len(self._failures) > self._addresses:
            self._failures.popitem(last=False)
