"""Who may see the console: sign-in, sessions, form tokens, and the headers of every page."""

from loragate_server.access.access import Access, make_access, require_permission, require_role
from loragate_server.access.forms import CSRF_FIELD, csrf_token

__all__ = [
    "CSRF_FIELD",
    "Access",
    "csrf_token",
    "make_access",
    "require_permission",
    "require_role",
]
