"""Mail and chat as tasks: what the server cannot take now is tried again later, what it refuses for good is a failure.

SMTP_HOST and SMTP_PORT name the mail server of the worker; by default localhost:25.
"""

from __future__ import annotations

import json
import os
import smtplib
import urllib.request
from email.message import EmailMessage

from litetq import LiteTQ

app = LiteTQ("mail", broker="mail.sqlite")

TIMEOUT = 30  # seconds without an answer of a server


class Refused(Exception):
    """The server will never take this mail: trying again is of no use."""


# Not acks_late: a mail whose sending was cut off by a kill may be out already. It ends as FAILURE, and nobody gets it twice.
@app.task(autoretry_for=(OSError,), retry_backoff=True, max_retries=8, throws=(Refused,))
def send(sender: str, to: str, subject: str, text: str) -> str:
    """Send one mail; return the address. (Every error of smtplib is an OSError, as a lost connection is.)"""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, to, subject
    mail.set_content(text)
    host, port = os.environ.get("SMTP_HOST", "localhost"), int(os.environ.get("SMTP_PORT", "25"))
    with smtplib.SMTP(host, port, timeout=TIMEOUT) as server:
        try:
            server.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            code, words = error.recipients[to]
            if code >= 500:
                raise Refused(f"{code} {words.decode(errors='replace')}") from error
            raise
    return to


@app.task(autoretry_for=(OSError,), retry_backoff=True, max_retries=8)
def tell(webhook: str, text: str) -> int:
    """Post a line to a chat (Slack, Mattermost and others take this form); return the HTTP status."""
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(webhook, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        return int(answer.status)
