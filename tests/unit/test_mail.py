"""Mail: what it says, and that it leaves the machine; the relay of these tests is a real socket."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from labstead import mail
from labstead.mail import MailFailed
from labstead.settings import Hub, Mail

HUB = Hub(
    url="https://hub.example.org",
    address="172.31.240.1",
    admins=("carla",),
    title="Institute of Tests",
    mail=Mail(relay="127.0.0.1", sender="hub@example.org", admins=("admin@example.org", "second@example.org")),
)


@dataclass
class Received:
    """What the relay took."""

    sender: str
    recipients: list[str] = field(default_factory=list)
    data: bytes = b""

    @property
    def message(self) -> EmailMessage:
        message = message_from_bytes(self.data, policy=policy.default)
        assert isinstance(message, EmailMessage)
        return message


class _Handler(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as one mail needs."""

    server: "Relay"

    def handle(self) -> None:
        mail_now = Received("")
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            if verb.upper() == "MAIL":
                mail_now = Received(rest.split("<")[1].split(">")[0])
            elif verb.upper() == "RCPT":
                recipient = rest.split("<")[1].split(">")[0]
                if recipient.startswith("unknown"):
                    self.wfile.write(b"550 no such user\r\n")
                    continue
                mail_now.recipients.append(recipient)
            elif verb.upper() == "DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = []
                while (text := self.rfile.readline()) != b".\r\n":
                    lines.append(text)
                mail_now.data = b"".join(lines)
                self.server.received.append(mail_now)
            elif verb.upper() == "QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 good\r\n")


class Relay(socketserver.ThreadingTCPServer):
    """A relay that keeps what it gets."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[Received] = []


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def settings_of(relay: Relay, **kwargs: str) -> Mail:
    return Mail(relay="127.0.0.1", port=relay.server_address[1], sender="hub@example.org", **kwargs)


def test_a_message_arrives_as_it_was_written(relay: Relay) -> None:
    mail.send(settings_of(relay), mail.approved(HUB, "anna", "anna@example.org"))
    (got,) = relay.received
    assert (got.sender, got.recipients) == ("hub@example.org", ["anna@example.org"])
    assert got.message["Subject"] == "Institute of Tests: your account is open"
    assert got.message["Auto-Submitted"] == "auto-generated"
    text = got.message.get_content()
    assert "Your account anna is open." in text
    assert "https://hub.example.org/hub/login" in text


def test_each_administrator_is_told_of_a_signup(relay: Relay) -> None:
    mail.send(settings_of(relay), mail.signed_up(HUB, "anna", "anna@example.org"))
    assert [got.recipients for got in relay.received] == [["admin@example.org"], ["second@example.org"]]
    assert "sudo labstead user approve anna" in relay.received[0].message.get_content()


def test_what_one_recipient_refuses_does_not_keep_the_others(relay: Relay) -> None:
    messages = [
        *mail.approved(HUB, "u", "unknown@example.org"),
        *mail.approved(HUB, "anna", "anna@example.org"),
    ]
    with pytest.raises(MailFailed, match=r"refused unknown@example.org \(550 no such user\)") as failed:
        mail.send(settings_of(relay), messages)
    assert "\n" not in str(failed.value)
    assert [got.recipients for got in relay.received] == [["anna@example.org"]]


def test_a_link_stands_whole_on_a_line_of_its_own(relay: Relay) -> None:
    link = "https://hub.example.org/hub/set-password/" + "x" * 43
    mail.send(settings_of(relay), mail.invitation(HUB, "anna", "anna@example.org", link, days=14))
    text = relay.received[0].message.get_content()
    assert link in text.splitlines()
    assert link.encode() in relay.received[0].data.split(b"\r\n")
    assert "within 14 days" in text


def test_a_sites_title_may_have_any_letters(relay: Relay) -> None:
    hub = HUB.model_copy(update={"title": "Institut für Tests"})
    mail.send(settings_of(relay), mail.approved(hub, "anna", "anna@example.org"))
    assert relay.received[0].message["Subject"] == "Institut für Tests: your account is open"
    assert "Institut für Tests" in relay.received[0].message.get_content()


def test_a_relay_that_is_not_there_is_one_line() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = Mail(relay="127.0.0.1", port=nobody.getsockname()[1], sender="hub@example.org")
        with pytest.raises(MailFailed, match=r"127\.0\.0\.1 port") as failed:
            mail.send(settings, mail.approved(HUB, "anna", "anna@example.org"))
    assert "\n" not in str(failed.value)


def test_a_relay_without_encryption_is_refused_where_it_was_asked_for(relay: Relay) -> None:
    with pytest.raises(MailFailed):
        mail.send(settings_of(relay, security="starttls"), mail.approved(HUB, "anna", "anna@example.org"))
    assert relay.received == []


def test_nothing_is_sent_without_a_relay_or_an_address() -> None:
    without = HUB.model_copy(update={"mail": None})
    assert mail.approved(without, "anna", "anna@example.org") == []
    assert mail.signed_up(without, "anna") == []
    assert mail.approved(HUB, "anna", "") == []
    mail.send(Mail(relay="nowhere.invalid", sender="hub@example.org"), [])


def test_the_life_of_an_account_is_told_with_its_days() -> None:
    (soon,) = mail.expires_soon(HUB, "anna", "anna@example.org", date(2026, 12, 31))
    assert "2026-12-31" in soon["Subject"]
    (closed,) = mail.expired(HUB, "anna", "anna@example.org", date(2027, 1, 30))
    assert "until 2027-01-30" in closed.get_content()
    (kept,) = mail.expired(HUB, "anna", "anna@example.org", None)
    assert "stay where they are." in kept.get_content()
    (archived,) = mail.archived(HUB, "anna", "anna@example.org", date(2028, 1, 1))
    assert "2028-01-01" in archived.get_content()
    (gone,) = mail.removed(HUB, "anna", "anna@example.org")
    assert "deleted" in gone.get_content()


@pytest.mark.parametrize("address", ["anna@example.org", "a.b+c@sub.example.org", "x@localhost"])
def test_good_addresses(address: str) -> None:
    assert mail.problem_with_address(address) is None


@pytest.mark.parametrize(
    "address",
    [
        "",
        "anna",
        "anna@",
        "@example.org",
        "a@b@c",
        "a b@example.org",
        "a@example.org, b@example.org",
        "a,b@example.org",
        "a@example.org\nBcc: b@example.org",
        "a@example.org\r\nBcc: b@example.org",
        "<a@example.org>",
        "Anna <a@example.org>",
        '"a b"@example.org',
        "ä@example.org",
        "a@" + "x" * 260,
        "(c)a@example.org",
    ],
)
def test_bad_addresses_get_no_mail(address: str) -> None:
    assert mail.problem_with_address(address)
    assert mail.approved(HUB, "anna", address) == []


def test_a_name_cannot_smuggle_headers() -> None:
    messages = mail.signed_up(HUB, "anna", "anna@example.org")
    assert all(set(m.keys()) >= {"From", "To", "Subject", "Date", "Message-ID"} for m in messages)
    with pytest.raises(ValueError, match=r"linefeed|newline"):
        mail.signed_up(HUB, "anna\nBcc: x@example.org", "")
