"""Forms: proof that a page of the console sent one, and not another site."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from aiohttp import hdrs, web
from yarl import URL

from loragate_server.access.refusals import AccessRefused, Refusal
from loragate_server.access.sealing import Clock, derive_key

CSRF_FIELD: Final = "csrf"
MAX_FORM_BYTES: Final = 64 * 1024
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_FORM_TYPE: Final = "application/x-www-form-urlencoded"


class FormTokens:
    """Makes and checks tokens: a time, and a code over it, the person and the form's target."""

    def __init__(self, secret: bytes, life_s: float, clock: Clock) -> None:
        self._key = derive_key(secret, "forms")
        self._life_s, self._clock = life_s, clock

    def make(self, binding: str, path: str) -> str:
        """A token for a form that is sent to `path`."""
        made_s = int(self._clock())
        return f"{made_s}.{self._code(made_s, binding, path)}"

    def fits(self, token: str, binding: str, path: str) -> bool:
        """Whether the token was made for this person and target, and not too long ago."""
        made, _, code = token.partition(".")
        if not (made.isascii() and made.isdecimal() and len(made) <= 12 and code.isascii()):
            return False
        age_s = self._clock() - int(made)
        right = hmac.compare_digest(code, self._code(int(made), binding, path))
        return right and -60 <= age_s <= self._life_s

    def _code(self, made_s: int, binding: str, path: str) -> str:
        # Each part with its length, so that no two triples give one text.
        parts = (str(made_s), binding, path)
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), sha256).hexdigest()


@dataclass(frozen=True)
class BoundTokens:
    """Form tokens of one person.

    Attributes:
        signs_out: whether there is a form to sign out with.
    """

    tokens: FormTokens
    binding: str
    signs_out: bool

    def make(self, path: str) -> str:
        """A token for a form that this person sends to `path`."""
        return self.tokens.make(self.binding, path)


FORM_TOKENS: Final = web.RequestKey("form_tokens", BoundTokens)
"""Where the access middleware leaves what `csrf_token` needs."""


def csrf_token(request: web.Request, path: str | None = None) -> str:
    """The value of the hidden field `CSRF_FIELD` of a form.

    Args:
        request: the one that the page with the form answers; somebody has signed in.
        path: where the form is sent to, such as `/console/logout`; the page's own path if None.
    """
    return request[FORM_TOKENS].make(request.path if path is None else path)


def check_sender(request: web.Request, public_url: str) -> None:
    """Believes what browsers say of the page that sent a form.

    Raises:
        AccessRefused: it is not a page of the console, or the browser says nothing of it.
    """
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise AccessRefused(Refusal.CROSS_SITE, "Sec-Fetch-Site")
    sender = request.headers.get(hdrs.ORIGIN)
    if sender is None:
        sender = request.headers.get(hdrs.REFERER, "")
    if origin_of(sender) != origin_of(public_url):
        raise AccessRefused(Refusal.CROSS_SITE, "Origin")


async def check_form(request: web.Request, binding: str, tokens: FormTokens) -> None:
    """Reads a form and looks at its token; handlers then get the same form from `post()`.

    Raises:
        AccessRefused: it is no form, too long, or has no token that fits.
    """
    length = request.content_length
    if request.content_type != _FORM_TYPE or hdrs.CONTENT_ENCODING in request.headers:
        raise AccessRefused(Refusal.NOT_A_FORM, request.content_type)
    if length is None or length > MAX_FORM_BYTES:  # the parser ends the body at its length
        raise AccessRefused(Refusal.FORM_TOO_LONG, str(length))
    try:
        form = await request.post()
    except (ValueError, LookupError) as error:  # a charset that it is not, or that is none
        raise AccessRefused(Refusal.NOT_A_FORM, type(error).__name__) from error
    given = form.getall(CSRF_FIELD, [])
    if len(given) != 1 or not tokens.fits(str(given[0]), binding, request.path):
        raise AccessRefused(Refusal.FORM_TOKEN)


def origin_of(address: str) -> str:
    """Scheme, host and port in one form; empty if it is no address."""
    try:
        return str(URL(address).origin())
    except ValueError:
        return ""
