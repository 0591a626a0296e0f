"""A real SMTP server that keeps every mail it takes as one line of JSON.

A line holds the envelope (`mail_from`, `rcpt_to`), how it came (`tls`, `user`), the message as it
was sent (`raw`) and what its reader would see (`headers`, `text`, `html`, decoded).
"""

import argparse
import asyncio
import email
import email.policy
import hmac
import json
import logging
import signal
import ssl
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

import listening


class Keep:
    """Decides about each mail as the options say, and writes down the accepted ones."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out = open(options.out, "a", encoding="utf-8") if options.out else sys.stdout
        self.defer = options.defer
        self.drop = options.drop
        self.reject = set(options.reject)
        self.implicit_tls = options.tls

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:
        if address in self.reject:
            return "550 5.1.1 No such mailbox here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.defer > 0:
            self.defer -= 1
            return "451 4.3.2 Try again later"
        user = session.auth_data
        self.write(envelope, self.implicit_tls or session.ssl is not None, user)
        if self.drop > 0:
            self.drop -= 1
            # Not closed in order: whoever sent the mail never learns that it is here.
            server.transport.abort()
        return "250 OK"

    def write(self, envelope: Envelope, tls: bool, user: str | None) -> None:
        raw = envelope.original_content
        message = email.message_from_bytes(raw, policy=email.policy.default)
        parts = {kind: message.get_body((kind,)) for kind in ("plain", "html")}
        mail = {
            "mail_from": envelope.mail_from,
            "rcpt_to": envelope.rcpt_tos,
            "tls": tls,
            "user": user,
            "headers": {name.lower(): str(value) for name, value in message.items()},
            "text": parts["plain"].get_content() if parts["plain"] else None,
            "html": parts["html"].get_content() if parts["html"] else None,
            "raw": raw.decode("utf-8", errors="backslashreplace"),
        }
        print(json.dumps(mail, ensure_ascii=False), file=self.out, flush=True)


def authenticator(wanted: str):
    name, _, password = wanted.partition(":")

    def check(server, session, envelope, mechanism, data) -> AuthResult:
        if not isinstance(data, LoginPassword):
            return AuthResult(success=False, handled=False)
        same_name = hmac.compare_digest(data.login, name.encode())
        same_password = hmac.compare_digest(data.password, password.encode())
        if not (same_name and same_password):
            return AuthResult(success=False, handled=False)
        return AuthResult(success=True, auth_data=name)

    return check


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one and prints it")
    parser.add_argument("--out", type=Path, help="append mails to this file, not to stdout")
    parser.add_argument("--certificate", type=Path, metavar="NAME", help="NAME.pem and NAME.key")
    parser.add_argument("--tls", action="store_true", help="TLS from the first byte")
    parser.add_argument("--require-starttls", action="store_true")
    parser.add_argument("--require-auth", metavar="USER:PASSWORD")
    parser.add_argument("--defer", type=int, default=0, metavar="N", help="answer 451 to the first N")
    parser.add_argument("--drop", type=int, default=0, metavar="N", help="take the first N, then cut")
    parser.add_argument("--reject", action="append", default=[], metavar="ADDRESS", help="answer 550")
    options = parser.parse_args()
    if (options.tls or options.require_starttls) and options.certificate is None:
        parser.error("--tls and --require-starttls need --certificate")
    return options


async def main() -> None:
    options = parse()
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    context = None
    if options.certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(f"{options.certificate}.pem", f"{options.certificate}.key")
    keep = Keep(options)

    def session() -> SMTP:
        return SMTP(
            keep,
            hostname="localhost",
            enable_SMTPUTF8=True,
            tls_context=None if options.tls else context,
            require_starttls=options.require_starttls,
            # Inside implicit TLS aiosmtpd sees no STARTTLS and would never offer AUTH.
            auth_require_tls=context is not None and not options.tls,
            auth_required=options.require_auth is not None,
            authenticator=authenticator(options.require_auth) if options.require_auth else None,
        )

    listener = listening.bind(options.host, options.port)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(session, sock=listener, ssl=context if options.tls else None)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listening.end_with_parent()
    listening.announce(listener)
    async with server:
        await stop.wait()


asyncio.run(main())
