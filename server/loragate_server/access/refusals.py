"""Why somebody is not let in."""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from typing import Final


class Refusal(StrEnum):
    """A reason; its value stands in logs and in pages."""

    WRONG_HOST = "wrong_host"
    SIGN_IN = "sign_in"
    NO_ROLE = "no_role"
    CROSS_SITE = "cross_site"
    FORM_TOKEN = "form_token"  # noqa: S105
    NOT_A_FORM = "not_a_form"
    FORM_TOO_LONG = "form_too_long"
    UPLOAD_TOO_LONG = "upload_too_long"
    LOGIN_UNKNOWN = "login_unknown"
    LOGIN_INCOMPLETE = "login_incomplete"
    PROVIDER_REFUSED = "provider_refused"
    PROVIDER_DOWN = "provider_down"
    PROVIDER_WRONG = "provider_wrong"
    TOKEN_REFUSED = "token_refused"  # noqa: S105
    NAME_UNUSABLE = "name_unusable"
    GROUPS_UNUSABLE = "groups_unusable"
    PROXY_UNTRUSTED = "proxy_untrusted"
    PROXY_HEADERS = "proxy_headers"
    DEMO_LINK = "demo_link"

    @property
    def status(self) -> HTTPStatus:
        """Of the answer."""
        return _STATUS.get(self, HTTPStatus.FORBIDDEN)


_STATUS: Final = {
    Refusal.WRONG_HOST: HTTPStatus.MISDIRECTED_REQUEST,
    Refusal.SIGN_IN: HTTPStatus.UNAUTHORIZED,
    Refusal.NOT_A_FORM: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Refusal.FORM_TOO_LONG: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Refusal.UPLOAD_TOO_LONG: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Refusal.LOGIN_UNKNOWN: HTTPStatus.BAD_REQUEST,
    Refusal.LOGIN_INCOMPLETE: HTTPStatus.BAD_REQUEST,
    Refusal.PROVIDER_DOWN: HTTPStatus.SERVICE_UNAVAILABLE,
    Refusal.PROVIDER_WRONG: HTTPStatus.BAD_GATEWAY,
    Refusal.PROXY_HEADERS: HTTPStatus.BAD_REQUEST,
    Refusal.DEMO_LINK: HTTPStatus.UNAUTHORIZED,
}


class AccessRefused(Exception):  # noqa: N818
    """Somebody is not let in.

    Attributes:
        detail: what was wrong, for log and page. Never a secret or a token.
    """

    def __init__(self, refusal: Refusal, detail: str = "") -> None:
        super().__init__(f"{refusal}: {detail}")
        self.refusal = refusal
        self.detail = detail
