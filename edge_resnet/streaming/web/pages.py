"""The page, its files and the sign-in form. Does not know what is shown: the page's script asks the API."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from edge_resnet.streaming.web.access import Access, client, cookie_name, too_many
from edge_resnet.streaming.web.tokens import COOKIE_S, Attempts

__all__ = ["Pages"]

_FORM_BYTES = 4096
_FORM_S = 5.0
#: The only files that can be requested: no path is ever built from a request.
_TYPES: Mapping[str, str] = MappingProxyType({"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"})
_WRONG = '<p class="wrong" id="wrong" role="alert">This is not the token.</p>'


class Pages:
    """The page's files, read once when the server starts."""

    def __init__(self, access: Access, attempts: Attempts) -> None:
        folder = resources.files(__package__) / "static"
        self._files = {name: (folder / name).read_bytes() for name in _TYPES}
        self._page = (folder / "page.html").read_text(encoding="utf-8")
        self._form = (folder / "login.html").read_text(encoding="utf-8")
        self._access = access
        self._attempts = attempts

    async def home(self, request: Request) -> Response:  # noqa: ARG002
        """The page."""
        return HTMLResponse(self._page)

    async def static(self, request: Request) -> Response:
        """A file of the page."""
        name = request.path_params["name"]
        if name not in self._files:
            raise HTTPException(404)
        return Response(self._files[name], media_type=_TYPES[name], headers={"Cache-Control": "no-cache"})

    def sign_in(self, *, wrong: bool = False) -> Response:
        """The form, as the response to a request without a token, or with a wrong one."""
        return HTMLResponse(self._form.replace("<!-- wrong -->", _WRONG if wrong else ""), 401)

    async def login(self, request: Request) -> Response:
        """Show the form, and on POST exchange its token for a cookie."""
        if request.method != "POST":
            return HTMLResponse(self._form)
        origin, token = self._access.sent_from(request.headers), self._access.token
        if origin is None and "origin" in request.headers:
            raise HTTPException(403, "this form was sent by another site")
        shown = parse_qs(await _body(request)).get("token", [""])[0].strip()
        if token is None or not token.matches(shown):
            wait_s = self._attempts.wait_s(client(request.scope))
            if wait_s > 0:
                return too_many(wait_s)
            self._attempts.wrong(client(request.scope))
            return self.sign_in(wrong=True)
        origin = origin or self._access.origin
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            cookie_name(request.scope),
            token.cookie(),
            max_age=COOKIE_S,
            path="/",
            secure=origin is not None and origin.secure,
            httponly=True,
            samesite="strict",
        )
        return answer


async def _body(request: Request) -> str:
    """The body of a form. Raises HTTPException if it is too long or takes too long."""
    body = b""

    async def read() -> None:
        nonlocal body
        async for chunk in request.stream():
            body += chunk
            if len(body) > _FORM_BYTES:
                raise HTTPException(413)

    try:
        await asyncio.wait_for(read(), _FORM_S)
    except asyncio.TimeoutError as error:
        raise HTTPException(408) from error
    return body.decode("utf-8", "replace")
