"""The administrators' page of disks: who uses what, what they may use, and how that came about.

The one rule: it only shows. Limits are said on the machine (`labstead quota`) or in the inventory.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Literal, get_args

from jupyterhub.handlers import BaseHandler
from jupyterhub.scopes import needs_scope
from tornado import web

from labstead import usage
from labstead.accounts.protocol import Space
from labstead.errors import LabsteadError
from labstead.hub import chart, lists
from labstead.hub.chart import Chart, Series
from labstead.hub.spaces import files_of, fullest, known_spaces, level_of
from labstead.settings import SpaceKind
from labstead_session.notices import NOTICE, WARNING, size

DAYS = 90
"""How far back the chart goes."""
_NAMED = 8
"""How many that are almost full are named above the table."""
_UNAVAILABLE = 503

KINDS: tuple[SpaceKind, ...] = get_args(SpaceKind)
TITLES: dict[SpaceKind, str] = {"home": "Homes", "group": "Group folders", "scratch": "Scratch"}
SAID_BY = {"own": "itself", "group": "a group", "site": "the site"}

Order = Literal["percent", "use", "files", "name"]
ORDERS: tuple[Order, ...] = get_args(Order)


def percent_of(space: Space) -> int | None:
    """Give how full a space is, by bytes or by files, whichever is nearer to its limit."""
    amount = fullest(space)
    return amount.percent if amount else None


def in_order(spaces: Iterable[Space], order: Order) -> list[Space]:
    """Sort spaces: by name, or the most first."""

    def place(space: Space) -> tuple[float, float, str, int]:
        percent, used, files = percent_of(space), space.used_bytes, space.used_files
        kind = KINDS.index(space.kind)
        if order == "name":
            return 0, 0, space.name, kind
        by = {"percent": percent, "use": used, "files": files}[order]
        return -(-1 if by is None else by), -(-1 if used is None else used), space.name, kind

    return sorted(spaces, key=place)


@dataclass(frozen=True)
class Total:
    """What all spaces of a kind on a kind of file system hold."""

    kind: SpaceKind
    file_system: str
    count: int
    used: int
    allowed: int
    """Sum of the limits."""
    unlimited: int
    """How many have no limit."""


def totals(spaces: Iterable[Space]) -> list[Total]:
    """Add up what there is."""
    found: dict[tuple[int, str], list[Space]] = defaultdict(list)
    for space in spaces:
        found[KINDS.index(space.kind), space.file_system].append(space)
    return [
        Total(
            kind=KINDS[kind],
            file_system=file_system,
            count=len(members),
            used=sum(space.used_bytes or 0 for space in members),
            allowed=sum(space.limit_bytes or 0 for space in members),
            unlimited=sum(not space.limit_bytes for space in members),
        )
        for (kind, file_system), members in sorted(found.items())
    ]


@dataclass(frozen=True)
class Query:
    """What somebody looks for on the page."""

    text: str = ""
    kind: str = ""
    least: int = 0
    """Percent from which on spaces are shown; 0: all."""
    order: Order = "percent"
    number: int = 1
    of: str = ""
    """Whose history the chart shows, as `kind:name`; empty: all."""

    def spaces(self, everything: Iterable[Space]) -> list[Space]:
        """Give what is looked for, in order."""
        words = self.text.casefold().split()
        found = [
            space
            for space in everything
            if (space.kind == self.kind or self.kind not in KINDS)
            and (percent_of(space) or 0) >= self.least
            and all(word in f"{space.name}\n{space.path}".casefold() for word in words)
        ]
        return in_order(found, self.order)

    @property
    def chosen(self) -> tuple[SpaceKind, str] | None:
        """Give whose history is looked for."""
        kind, _, name = self.of.partition(":")
        return next(((known, name) for known in KINDS if known == kind and name), None)

    @property
    def is_narrow(self) -> bool:
        """Tell whether only some are looked for."""
        return bool(self.text or self.kind in KINDS or self.least)

    def url(self, path: str) -> str:
        """Give the address of the page that shows this."""
        words = {
            "q": self.text,
            "kind": self.kind,
            "least": str(self.least or ""),
            "sort": "" if self.order == "percent" else self.order,
            "of": self.of,
            "page": str(self.number),
        }
        return lists.address(path, words)


def history(chosen: tuple[SpaceKind, str] | None, today: date) -> Chart | None:
    """Draw what was measured: of one space with its limit, or of all, by kind."""
    if chosen is None:
        sums: dict[SpaceKind, list[tuple[date, int]]] = defaultdict(list)
        for total in usage.totals(DAYS):
            sums[total.kind].append((total.day, total.bytes))
        series = [Series(TITLES[kind], kind, tuple(sums[kind])) for kind in KINDS if kind in sums]
    else:
        samples = usage.history(DAYS, *chosen)
        used = tuple((sample.day, sample.bytes) for sample in samples)
        limits = tuple((sample.day, sample.limit_bytes) for sample in samples if sample.limit_bytes)
        series = [Series("Used", chosen[0], used), Series("Limit", "limit", limits)]
    return chart.draw(series, today, DAYS)


class DisksHandler(BaseHandler):  # type: ignore[misc]
    """Who uses what, for administrators."""

    def _query(self) -> Query:
        order = self.get_argument("sort", "")
        return Query(
            text=self.get_argument("q", "")[:200].strip(),
            kind=self.get_argument("kind", ""),
            least=next((least for least in (NOTICE, WARNING) if self.get_argument("least", "") == str(least)), 0),
            order=next((known for known in ORDERS if known == order), "percent"),
            number=lists.page_number(self.get_argument("page", "1")),
            of=self.get_argument("of", "")[:200],
        )

    @web.authenticated
    @needs_scope("admin:users")  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """Show the page."""
        query, address = self._query(), self.hub.base_url + "disks"
        spaces: Sequence[Space] = []
        problem = None
        drawing = asyncio.create_task(asyncio.to_thread(history, query.chosen, datetime.now(UTC).date()))
        try:
            spaces = await known_spaces(self.authenticator.disks)
        except LabsteadError as error:
            self.log.error("disks: %s", error)
            problem = f"What is on the disks cannot be shown now: {error}"
            self.set_status(_UNAVAILABLE)
        tight = in_order((space for space in spaces if level_of(space) in ("warning", "full")), "percent")
        self.finish(
            await self.render_template(
                "disks.html",
                query=query,
                kinds=TITLES,
                said_by=SAID_BY,
                page=lists.page_of(query.spaces(spaces), query.number),
                everything=len(spaces),
                totals=totals(spaces),
                tight=tight[:_NAMED],
                tight_found=len(tight),
                chart=await drawing,
                days=DAYS,
                least=(NOTICE, WARNING),
                page_url=lambda number: replace(query, number=number).url(address),
                sort_url=lambda order: replace(query, order=order, number=1).url(address),
                history_url=lambda of: replace(query, of=of).url(address) + "#history",
                tight_url=Query(least=WARNING).url(address),
                fullest=fullest,
                files_of=files_of,
                level_of=level_of,
                percent_of=percent_of,
                size=size,
                problem=problem,
            )
        )
