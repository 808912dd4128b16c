"""Forms of a page, read as a browser does, so that tests send what the page would and not what they know."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Form:
    """A form: where it goes, how, and its fields with the values that they have."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.text: list[str] = []
        self._inside = False
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        words = {key: value or "" for key, value in attrs}
        self._silent += tag in ("script", "style")
        if tag == "form":
            self._inside = True
            self.forms.append(Form(words.get("action", ""), words.get("method", "get").lower()))
        elif tag in ("input", "button") and self._inside and "name" in words:
            value = words.get("value", "")
            if words.get("type") == "submit":
                self.forms[-1].buttons.append((words["name"], value))
            elif words.get("type") == "radio":
                first = self.forms[-1].fields.setdefault(words["name"], "")
                self.forms[-1].fields[words["name"]] = value if "checked" in words else first
            else:
                self.forms[-1].fields[words["name"]] = value

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")
        if tag == "form":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text.append(data)


def _parse(html: str) -> _Forms:
    parser = _Forms()
    parser.feed(html)
    return parser


def forms_of(html: str) -> list[Form]:
    """Give the forms of a page."""
    return _parse(html).forms


def words_of(html: str) -> str:
    """Give what a person reads on a page, on one line."""
    return " ".join(" ".join(_parse(html).text).split())
