"""Mail to people and administrators: what it says, and how it leaves the machine.

The one rule: mail only repeats what the hub's pages and the journal show as well, so that nothing is lost where there
is no relay or it fails; whoever sends logs a failure and goes on. The one thing that stands nowhere else is the link
in an invitation.
"""

import os
import re
import smtplib
import ssl
from collections.abc import Iterable, Sequence
from datetime import date
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from urllib.parse import urlsplit

from labstead import secrets
from labstead.errors import LabsteadError
from labstead.settings import Hub, Mail

PASSWORD_VARIABLE = "LABSTEAD_MAIL_PASSWORD"  # noqa: S105 - the name of an environment variable
"""Where the relay's password is, if it wants one."""

_TIMEOUT_SECONDS = 20
_MAX_ADDRESS = 254
"""Characters of an address (RFC 5321, 4.5.3.1.3, less the angle brackets)."""
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
"""What browsers take in a field for an address (HTML standard, 4.10.5.1.5)."""


class MailFailed(LabsteadError):
    """Mail that the relay did not take."""


def problem_with_address(address: str) -> str | None:
    """Say why mail cannot go to an address, as a sentence for the person who typed it; None where it can."""
    if len(address) > _MAX_ADDRESS:
        return f"An e-mail address has at most {_MAX_ADDRESS} characters."
    return None if _ADDRESS.fullmatch(address) else "This is not an e-mail address."


def public(hub: Hub, path: str = "") -> str:
    """Give the public address of one of the hub's pages, such as `hub/home`."""
    parts = urlsplit(hub.url)
    return f"{parts.scheme}://{parts.netloc}{hub.base_url}{path}"


def _message(hub: Hub, to: str, subject: str, paragraphs: Iterable[str]) -> EmailMessage | None:
    """Write one message; None where there is no relay or nobody to send it to."""
    if hub.mail is None or problem_with_address(to):
        return None
    message = EmailMessage()
    message["From"] = hub.mail.sender
    message["To"] = to
    message["Subject"] = f"{hub.title}: {subject}"
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=hub.mail.sender.rpartition("@")[2])
    # RFC 3834: no answers from holiday programs.
    message["Auto-Submitted"] = "auto-generated"
    text = "\n\n".join([*paragraphs, f"-- \n{hub.title}\n{public(hub)}"]) + "\n"
    # As it is, where that can be: a link must not be broken over lines for programs that do not put it together again.
    message.set_content(text, cte="7bit" if text.isascii() else "quoted-printable")
    return message


def _there(messages: Iterable[EmailMessage | None]) -> list[EmailMessage]:
    return [message for message in messages if message is not None]


def to_admins(hub: Hub, subject: str, paragraphs: Sequence[str]) -> list[EmailMessage]:
    """Write to all administrators who want mail."""
    addresses = hub.mail.admins if hub.mail else ()
    return _there(_message(hub, address, subject, paragraphs) for address in addresses)


# --- what is said


def signed_up(hub: Hub, name: str, email: str = "") -> list[EmailMessage]:
    """Tell administrators of a sign-up that waits."""
    who = f"{name} ({email})" if email else name
    words = [
        f"{who} asks for an account.",
        f"To approve or deny it: {public(hub, 'hub/people')}\nor on the machine: sudo labstead user approve {name}",
    ]
    return to_admins(hub, f"{name} asks for an account", words)


def approved(hub: Hub, name: str, email: str) -> list[EmailMessage]:
    """Tell somebody that their sign-up was approved."""
    words = [
        f"Your account {name} is open.",
        f"Log in with the password that you chose: {public(hub, 'hub/login')}",
    ]
    return _there([_message(hub, email, "your account is open", words)])


def invitation(hub: Hub, name: str, email: str, link: str, days: int) -> list[EmailMessage]:
    """Give somebody the link with which they set their password."""
    words = [
        f"You have the account {name}.",
        f"Choose a password here; the link works once, within {days} days:\n{link}",
        "If you do not expect this mail, please do nothing; nobody else can use the account.",
    ]
    return _there([_message(hub, email, "choose your password", words)])


def expires_soon(hub: Hub, name: str, email: str, day: date) -> list[EmailMessage]:
    """Tell somebody that their account will be closed."""
    words = [
        f"Your account {name} closes on {day.isoformat()}: from then on you cannot log in.",
        "If you need it for longer, please ask the administrators. Save what you want to keep.",
    ]
    return _there([_message(hub, email, f"your account closes on {day.isoformat()}", words)])


def expired(hub: Hub, name: str, email: str, archive_day: date | None) -> list[EmailMessage]:
    """Tell somebody that their account was closed and what becomes of the files."""
    later = (
        "Your files stay where they are."
        if archive_day is None
        else f"Your files stay where they are until {archive_day.isoformat()}; then they are put away in an archive."
    )
    words = [f"Your account {name} is closed.", later, "If you need it again, please ask the administrators."]
    return _there([_message(hub, email, "your account is closed", words)])


def archived(hub: Hub, name: str, email: str, remove_day: date | None) -> list[EmailMessage]:
    """Tell somebody that their account was removed and its files put into an archive."""
    later = "" if remove_day is None else f" The archive is deleted on {remove_day.isoformat()}."
    words = [
        f"Your account {name} was removed and its files were put into an archive.{later}",
        "If you need the files, please ask the administrators.",
    ]
    return _there([_message(hub, email, "your account was removed", words)])


def removed(hub: Hub, name: str, email: str) -> list[EmailMessage]:
    """Tell somebody that the archive of their files was deleted."""
    words = [f"The archive of the files of your former account {name} was deleted."]
    return _there([_message(hub, email, "your files were deleted", words)])


def fills_up(hub: Hub, email: str, what: str, path: str, full: int) -> list[EmailMessage]:
    """Tell somebody that a space of theirs, or a folder that they manage, fills up.

    :param what: the space's name for people
    :param full: percent of its limit, of bytes or of files
    """
    words = [
        f"The {what}, {path}, is {full}% full.",
        "Once it is full, nothing more can be saved there. Please delete what is no longer needed; in a session, "
        "`quota` in a terminal says what takes the room.",
    ]
    return _there([_message(hub, email, f"the {what} is {full}% full", words)])


# --- how it leaves


def _open(mail: Mail, password: str) -> smtplib.SMTP:
    if mail.security == "tls":
        context = ssl.create_default_context()
        relay: smtplib.SMTP = smtplib.SMTP_SSL(mail.relay, mail.port, timeout=_TIMEOUT_SECONDS, context=context)
    else:
        relay = smtplib.SMTP(mail.relay, mail.port, timeout=_TIMEOUT_SECONDS)
    try:
        if mail.security == "starttls":
            relay.starttls(context=ssl.create_default_context())
        if mail.user:
            relay.login(mail.user, password)
    except BaseException:
        relay.close()
        raise
    return relay


def _words(error: Exception) -> str:
    """Put a library's error into one line, without the text of a mail and without a password."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        answers = [f"{code} {text.decode(errors='replace')}" for code, text in error.recipients.values()]
        return "; ".join(answers)
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        return f"{error.smtp_code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"
    return " ".join(str(error).split()) or type(error).__name__


def send(mail: Mail, messages: Sequence[EmailMessage], password: str | None = None) -> None:
    """Hand messages to the relay, for a bounded time; what one recipient's server refuses keeps none from the others.

    :param password: the relay's, if it wants one; by default from the environment, or, for root, from site.env
    :raises MailFailed: when the relay did not take all of them; the message names those that it did not take
    """
    if not messages:
        return
    if password is None:
        password = os.environ.get(PASSWORD_VARIABLE) or secrets.of_site(PASSWORD_VARIABLE)
    failed: list[str] = []
    try:
        with _open(mail, password) as relay:
            for message in messages:
                try:
                    relay.send_message(message)
                except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError) as error:
                    failed.append(f"{message['To']} ({_words(error)})")
    except (OSError, smtplib.SMTPException) as error:
        raise MailFailed(f"mail: {mail.relay} port {mail.port}: {_words(error)}") from None
    if failed:
        raise MailFailed(f"mail: {mail.relay} refused {', '.join(failed)}")
