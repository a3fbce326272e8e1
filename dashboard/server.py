"""Serve the dashboard on this machine with security headers: python dashboard/server.py [--port 8501].

`streamlit run dashboard/app.py` shows the same pages without these headers. Settings come from `.streamlit/config.toml`
beside this folder, from wherever the command is typed.
"""

import argparse
import re
import tomllib
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HERE = Path(__file__).resolve().parent
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' {inline}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Nothing is loaded from elsewhere, so that a record or notebook from a stranger reaches no other server."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


class SecurityHeaders:
    """Middleware that adds `HEADERS` and the policy to every answer."""

    def __init__(self, app: ASGIApp):
        headers = HEADERS | {"Content-Security-Policy": POLICY.format(inline=" ".join(_inline_scripts()))}
        self.app = app
        self.headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer through the wrapped application."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in self.headers}
                others = [pair for pair in message["headers"] if pair[0].lower() not in names]
                message["headers"] = others + self.headers
            await send(message)

        await self.app(scope, receive, with_headers)


def _inline_scripts() -> list[str]:
    """Return the hashes of the scripts inside Streamlit's page, the only inline ones allowed."""
    page = (Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    return [f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts]


def settings() -> dict[str, Any]:
    """Return the settings file as Streamlit's dotted names."""
    sections = tomllib.loads((HERE.parent / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    return {f"{section}.{name}": value for section, part in sections.items() for name, value in part.items()}


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="Serve the dashboard on this machine.")
    parser.add_argument("--port", type=int, default=8501)
    chosen = settings() | {"server.port": parser.parse_args().port}
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=chosen["server.allowedHosts"])
    st.App(HERE / "app.py", middleware=[hosts, Middleware(SecurityHeaders)]).run(config=chosen)


if __name__ == "__main__":
    main()
